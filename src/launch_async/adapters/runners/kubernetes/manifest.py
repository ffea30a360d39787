"""From a launch order to the complete manifest of one run; nothing here talks to a cluster.

The resource config may be part of a Job's spec, a whole Job, a Pod, or an object of any other kind.
launch-features.md K1 to K4 and K16 have the rules, and what of them is a fault of W&B's agent. All
that a config has and that is not said here is left as it is: a Job waits in a queue of Kueue, for
example, by its label `kueue.x-k8s.io/queue-name` in `metadata`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from launch_async.adapters.runners.kubernetes.fields import (
    Document,
    copied,
    invalid,
    make_object,
    quoted,
    read_object,
    read_text,
)
from launch_async.adapters.runners.kubernetes.injection import (
    FETCH_KEY_PREFIX,
    CodeFetch,
    address_entries,
    give_code,
    give_command,
    give_image,
    give_names,
    give_pull_secret,
    give_variables,
    mark,
    secret_keys_of,
)
from launch_async.adapters.runners.kubernetes.names import (
    CODE_IMAGE_ANNOTATION,
    DEFAULT_PREFIX,
    IMAGE_ANNOTATION,
    MANAGED_BY,
    MANAGED_LABEL,
    SERVICES_ANNOTATION,
    TTL_ANNOTATION,
    WANDB_RUN_LABEL,
    is_dns_label,
    label_value,
    object_name,
    origin_annotation,
    pull_secret_name,
    run_labels,
)
from launch_async.adapters.runners.kubernetes.pods import PodTemplate, containers_of, pod_templates
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.restricted import restrict
from launch_async.adapters.runners.kubernetes.shapes import Shape, complete
from launch_async.domain.environment import BASE_URL
from launch_async.domain.macros import fill_macros
from launch_async.kit.addresses import is_loopback
from launch_async.ports.runner import ImageWork, LaunchOrder

UNKNOWN_IMAGE = "image.invalid/not-known-yet"
"""In the place of an image that is still to be built; no registry can have this name."""

HELPER_KEYS = frozenset(
    {"namespace", "configFile", "context", "group", "version", "builder"}
    | {"wait_for_ready", "wait_timeout"}
)
"""Keys of W&B's resource configs that are for the agent; its own sends them to the cluster."""
SET_BY_SERVER = frozenset(
    {"generateName", "uid", "resourceVersion", "generation", "creationTimestamp"}
    | {"deletionTimestamp", "managedFields", "selfLink"}
)
"""What a manifest has that was copied out of a cluster; nothing can be made with some of it."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a resource config wants its runs; None: where the agent's operator has them."""

    config_file: str | None = None
    context: str | None = None
    namespace: str | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One object to make, and what is made after it and belongs to it."""

    api_version: str
    kind: str
    namespace: str
    name: str
    body: dict[str, Any]
    """What is sent. No secret is in it."""
    ttl_seconds: int | None = None
    """Of a Job: how long its queue wants it to stay once it has ended."""
    secret_name: str | None = None
    """Secret that the pods wait for; None: the run has no secrets."""
    pull_secret_name: str | None = None
    """Secret with logins of registries; None: the pods name none of ours."""
    warnings: tuple[str, ...] = ()
    """What the item's user should know of it."""

    def owner_reference(self, uid: str) -> dict[str, str]:
        """What names the object as the owner of another: the cluster removes that one with it."""
        return {"apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": uid}


def place_of(resource_args: Mapping[str, Any], policy: KubernetesPolicy) -> Place:
    """The cluster and the namespace that a resource config names.

    Raises:
        ItemError: they are no names, or the operator does not let queues choose the cluster.
    """
    args = dict(resource_args)
    metadata = read_object(args, "metadata", ())
    namespace = read_text(metadata, "namespace", ("metadata",)) or read_text(args, "namespace", ())
    if namespace is not None and not is_dns_label(namespace):
        raise invalid(
            ("namespace",),
            f"is {quoted(namespace)}: write it in lower-case letters, digits and dashes.",
        )
    place = Place(
        config_file=read_text(args, "configFile", ()),
        context=read_text(args, "context", ()),
        namespace=namespace,
    )
    policy.check_cluster(place.config_file, place.context)
    return place


def make_manifest(
    order: LaunchOrder,
    policy: KubernetesPolicy,
    *,
    image: str | None,
    default_namespace: str,
    pull_secret: bool,
    fetch: CodeFetch | None = None,
) -> Manifest:
    """The complete manifest of the order's run; the order itself stays as it is.

    `image`: None as long as nobody knows it, for a dry run. `pull_secret`: whether the pods name a
    Secret with logins of registries. `fetch`: brings the code, if it is in no image.

    Raises:
        ItemError: the resource config is wrong, which the text tells with the place; or refused.
    """
    image = image or UNKNOWN_IMAGE
    body: Document = fill_macros(copied(order.resource_args), {"image_uri": image})
    namespace = place_of(body, policy).namespace or default_namespace
    policy.check_namespace(namespace)
    shape = complete(body)
    policy.check_kind(shape.api_version, shape.kind)
    policy.check_body(body)
    for key in (*HELPER_KEYS, "status"):
        body.pop(key, None)
    name = _name(body, namespace, order)
    manifest = Manifest(
        api_version=shape.api_version,
        kind=shape.kind,
        namespace=namespace,
        name=name,
        body=body,
        ttl_seconds=shape.ttl_seconds,
        secret_name=name if order.secrets or (fetch and fetch.secrets) else None,
        pull_secret_name=pull_secret_name(name) if pull_secret else None,
    )
    pods = pod_templates(body)
    _fill(pods, order, manifest, image, plain=shape.is_plain, fetch=fetch)
    _mark_all(pods, order, shape, body, fetch=fetch)
    return msgspec.structs.replace(manifest, warnings=tuple(_warnings(pods)))


def _name(body: Document, namespace: str, order: LaunchOrder) -> str:
    """Name the object; digits of a `generateName` stay, unlike with W&B's agent."""
    metadata = make_object(body, "metadata", ())
    wanted = read_text(metadata, "name", ("metadata",)) or read_text(
        metadata, "generateName", ("metadata",)
    )
    for key in SET_BY_SERVER:
        metadata.pop(key, None)
    name = object_name(wanted or DEFAULT_PREFIX, order.run.run_id, order.item_id)
    metadata["name"], metadata["namespace"] = name, namespace
    return name


def _fill(
    pods: Sequence[PodTemplate],
    order: LaunchOrder,
    manifest: Manifest,
    image: str,
    *,
    plain: bool,
    fetch: CodeFetch | None,
) -> None:
    work = order.work
    unbuilt = fetch is not None or (isinstance(work, ImageWork) and work.code is not None)
    for pod in pods:
        give_names(pod)
    own = give_image(pods, image, insist=plain and not unbuilt)
    entrypoint = work.entrypoint
    if not own and not plain and not order.entrypoint_asked:
        entrypoint = ()  # the program of a kind whose images are all its queue's
    own = own or containers_of(pods)
    give_command(own, entrypoint=entrypoint, replace=order.entrypoint_asked, args=order.args)
    keys = secret_keys_of(manifest.secret_name or "", order.secrets)
    for container in containers_of(pods):
        give_variables(container, order.environment, keys)
    if fetch is not None:
        keys |= secret_keys_of(manifest.secret_name or "", fetch.secrets, prefix=FETCH_KEY_PREFIX)
        give_code(pods, own, fetch, secret_keys=keys)
    for pod in pods:
        if manifest.pull_secret_name is not None:
            give_pull_secret(pod, manifest.pull_secret_name)
        restrict(pod)


def _mark_all(
    pods: Sequence[PodTemplate],
    order: LaunchOrder,
    shape: Shape,
    body: Document,
    *,
    fetch: CodeFetch | None,
) -> None:
    """Labels to select by, and where the run comes from.

    Pods of other kinds carry that too, since the run may be known by its pods alone.
    """
    labels, origin = run_labels(order.origin), origin_annotation(order.origin)
    own = {} if shape.ttl_seconds is None else {TTL_ANNOTATION: str(shape.ttl_seconds)}
    if isinstance(order.work, ImageWork):
        own[IMAGE_ANNOTATION] = order.work.image
    if fetch is not None:
        own[CODE_IMAGE_ANNOTATION] = fetch.image
    if order.services:
        own[SERVICES_ANNOTATION] = str(len(order.services))
    mark(body, (), {**labels, WANDB_RUN_LABEL: label_value(order.run.run_id)}, origin | own)
    body["metadata"]["labels"].setdefault(MANAGED_LABEL, MANAGED_BY)
    for pod in pods:
        also = {} if pod.path else own  # a pod without a controller is the object itself
        mark(pod.fields, pod.path, labels, {} if shape.is_job else origin | also)


def _warnings(pods: Sequence[PodTemplate]) -> Iterator[str]:
    for pod in pods:
        for container in pod.containers:
            for entry in address_entries(container):
                address = entry.get("value")
                if isinstance(address, str) and is_loopback(address) and not _is_hosts(pod):
                    yield (
                        f"The run looks for W&B at {address}, which in a pod is the pod itself: it"
                        " will not be found there. Give the agent an address that pods reach, or"
                        f" set {BASE_URL} in the `env` of the queue's containers."
                    )
                    return


def _is_hosts(pod: PodTemplate) -> bool:
    return pod.spec.get("hostNetwork") is True
