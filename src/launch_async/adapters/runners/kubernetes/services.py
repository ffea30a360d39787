"""What runs beside a run: each of W&B's `additional_services` is a manifest of any kind.

It goes into the run's namespace under the name that it gives itself, as the run reaches it by that.
A Secret of the run owns all of them: the cluster removes them with it, whatever their kinds are;
W&B's agent never removes any (launch-features.md K15). Their pods are not the run's: they are
labelled apart.
"""

from collections.abc import Mapping
from typing import Any

from launch_async.adapters.runners.kubernetes.fields import (
    Document,
    copied,
    invalid,
    make_object,
    quoted,
    read_text,
)
from launch_async.adapters.runners.kubernetes.injection import (
    give_names,
    give_pull_secret,
    give_variables,
    mark,
    secret_keys_of,
)
from launch_async.adapters.runners.kubernetes.manifest import HELPER_KEYS, SET_BY_SERVER, Manifest
from launch_async.adapters.runners.kubernetes.names import (
    MANAGED_BY,
    MANAGED_LABEL,
    WANDB_RUN_LABEL,
    dns_words,
    label_value,
    service_labels,
    services_secret_name,
)
from launch_async.adapters.runners.kubernetes.pods import pod_templates
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.restricted import restrict
from launch_async.adapters.runners.kubernetes.shapes import identify
from launch_async.ports.runner import LaunchOrder

MAX_NAME = 63
_CONFIG_VARIABLE = "WANDB_CONFIG"
"""With its shards, all that a service is told of its run, beside the run's secrets."""


def make_service(
    config: Mapping[str, Any],
    order: LaunchOrder,
    policy: KubernetesPolicy,
    *,
    run: Manifest,
) -> Manifest:
    """The manifest of one service, macros filled in `config` before; its owner is not there yet.

    What an item may open is not looked at here (domain/policy.py).

    Raises:
        ItemError: the config is wrong, which the text tells with the place; or refused.
    """
    body: Document = copied(config)
    if read_text(body, "kind", ()) is None:
        raise invalid(("kind",), "is missing: say what is to run beside the job, such as Service.")
    shape = identify(body)
    policy.check_kind(shape.api_version, shape.kind)
    policy.check_body(body)
    name = _name(body, run)
    for key in (*HELPER_KEYS, "status"):
        body.pop(key, None)
    service = Manifest(
        api_version=shape.api_version,
        kind=shape.kind,
        namespace=run.namespace,
        name=name,
        body=body,
        secret_name=services_secret_name(run.name),
        pull_secret_name=run.pull_secret_name,
    )
    labels = service_labels(order.origin)
    mark(body, (), {**labels, WANDB_RUN_LABEL: label_value(order.run.run_id)}, {})
    body["metadata"]["labels"].setdefault(MANAGED_LABEL, MANAGED_BY)
    _fill_pods(service, order, labels)
    return service


def owned_body(service: Manifest, run: Manifest, secret_uid: str) -> Document:
    """What is sent of a service, once the Secret is there that owns it."""
    owner = {
        "apiVersion": "v1",
        "kind": "Secret",
        "name": services_secret_name(run.name),
        "uid": secret_uid,
    }
    metadata = {**service.body["metadata"], "ownerReferences": [owner]}
    return {**service.body, "metadata": metadata}


def pods_wanted(service: Manifest) -> int:
    """How many of its pods must be ready: of kinds that only make some at times, none."""
    spec = service.body.get("spec")
    if not isinstance(spec, dict) or not pod_templates(service.body):
        return 0
    match service.kind:
        case "Pod" | "DaemonSet":
            return 1
        case "CronJob":
            return 0
        case "Job":
            return 0 if spec.get("suspend") else _number(spec.get("parallelism"))
        case _:
            return _number(spec.get("replicas"))


def _number(given: Any) -> int:
    return given if isinstance(given, int) else 1


def _name(body: Document, run: Manifest) -> str:
    metadata = make_object(body, "metadata", ())
    given = read_text(metadata, "name", ("metadata",))
    name = dns_words(given or "")[:MAX_NAME].rstrip("-")
    if not name:
        raise invalid(
            ("metadata", "name"), "is missing: the run reaches what runs beside it by its name."
        )
    namespace = read_text(metadata, "namespace", ("metadata",)) or run.namespace
    if namespace != run.namespace:
        raise invalid(
            ("metadata", "namespace"),
            f"is {quoted(namespace)}, but the run is in {run.namespace}: leave it out.",
        )
    for key in SET_BY_SERVER:
        metadata.pop(key, None)
    metadata["name"], metadata["namespace"] = name, namespace
    return name


def _fill_pods(service: Manifest, order: LaunchOrder, labels: Mapping[str, str]) -> None:
    environment = {
        name: value
        for name, value in order.environment.items()
        if name == _CONFIG_VARIABLE or name.startswith(f"{_CONFIG_VARIABLE}_")
    }
    keys = secret_keys_of(service.secret_name or "", order.secrets)
    for pod in pod_templates(service.body):
        give_names(pod)
        for container in pod.containers:
            give_variables(container, environment, keys)
        if service.pull_secret_name is not None:
            give_pull_secret(pod, service.pull_secret_name)
        restrict(pod)
        mark(pod.fields, pod.path, labels, {})
