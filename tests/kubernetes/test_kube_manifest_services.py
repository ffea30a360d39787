"""What runs beside a run is told of it, and goes with it."""

import base64
from typing import Any

import pytest
from kube_orders import ENVIRONMENT, an_order, manifest_of

from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.secret_bodies import services_secret_body
from launch_async.adapters.runners.kubernetes.services import (
    make_service,
    owned_body,
    pods_wanted,
)
from launch_async.domain.errors import ItemError, Reason
from launch_async.testing import SECRET

ENV = {**ENVIRONMENT, "WANDB_CONFIG_0": "{", "WANDB_CONFIG_1": "}"}
ORDER = an_order({}, environment=ENV)
RUN = manifest_of({"namespace": "team"}, pull_secret=True)
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "db-7k2m9xq1"},
    "spec": {
        "selector": {"matchLabels": {"app": "db"}},
        "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"image": "redis:7"}]},
        },
    },
}


def service(config: dict[str, Any], policy: KubernetesPolicy | None = None) -> Manifest:
    return make_service(config, ORDER, policy or KubernetesPolicy(), run=RUN)


def test_it_keeps_its_name_and_comes_into_the_runs_namespace():
    made = service({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {}})
    assert (made.name, made.namespace) == ("db", "team")
    assert made.body["metadata"]["name"] == "db"
    assert made.body["metadata"]["namespace"] == "team"
    assert made.body["spec"] == {}


def test_it_goes_with_a_secret_that_goes_with_the_run_that_it_is_for():
    made = service(DEPLOYMENT)
    (owner,) = owned_body(made, RUN, "uid-1")["metadata"]["ownerReferences"]
    secret = services_secret_body(RUN, ORDER, "uid-of-the-run")
    name = secret["metadata"]["name"]
    assert owner == {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": "uid-1"}
    (owner,) = secret["metadata"]["ownerReferences"]
    assert owner == RUN.owner_reference("uid-of-the-run")
    assert "ownerReferences" not in made.body["metadata"]


def test_its_secrets_are_in_that_secret_as_the_runs_own_comes_last():
    secret = services_secret_body(RUN, ORDER, "uid-1")
    (container,) = service(DEPLOYMENT).body["spec"]["template"]["spec"]["containers"]
    [key] = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one]
    assert key == {"name": secret["metadata"]["name"], "key": "WANDB_API_KEY"}
    assert base64.b64decode(secret["data"]["WANDB_API_KEY"]).decode() == SECRET
    assert key["name"] != RUN.secret_name


@pytest.mark.parametrize(
    ("change", "pods"),
    [
        ({}, 1),
        ({"spec": {**DEPLOYMENT["spec"], "replicas": 3}}, 3),
        ({"spec": {**DEPLOYMENT["spec"], "replicas": 0}}, 0),
        ({"kind": "DaemonSet"}, 1),
        ({"kind": "Job", "spec": {**DEPLOYMENT["spec"], "parallelism": 2}}, 2),
        ({"kind": "Job", "spec": {**DEPLOYMENT["spec"], "suspend": True}}, 0),
        ({"kind": "CronJob", "spec": {"jobTemplate": {"spec": DEPLOYMENT["spec"]}}}, 0),
        ({"kind": "Pod", "spec": DEPLOYMENT["spec"]["template"]["spec"]}, 1),
        ({"kind": "Service", "spec": {"selector": {"app": "db"}}}, 0),
        ({"kind": "ConfigMap", "spec": None}, 0),
    ],
)
def test_so_many_of_its_pods_are_waited_for(change: dict[str, Any], pods: int):
    assert pods_wanted(service({**DEPLOYMENT, **change})) == pods


def test_its_pods_get_the_runs_config_and_secrets_and_no_more():
    body = service(DEPLOYMENT).body
    pod = body["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {entry["name"] for entry in container["env"]} == {
        "WANDB_CONFIG_0", "WANDB_CONFIG_1", "WANDB_API_KEY"
    }  # fmt: skip
    assert container["image"] == "redis:7"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["imagePullSecrets"] == [{"name": f"{RUN.name}-pull"}]
    assert "restartPolicy" not in pod
    assert SECRET not in str(body)


def test_its_pods_are_not_taken_for_the_runs():
    body = service(DEPLOYMENT).body
    item = RUN.body["metadata"]["labels"]["launch-async/item"]
    for labels in (body["metadata"]["labels"], body["spec"]["template"]["metadata"]["labels"]):
        assert "launch-async/item" not in labels
        assert labels["launch-async/service-of"] == item
        assert labels["launch-async/identity"] == "agent-1"
    assert body["spec"]["template"]["metadata"]["labels"]["app"] == "db"


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        ({"kind": None}, "kind", "such as Service"),
        ({"metadata": {}}, "metadata.name", "by its name"),
        ({"metadata": {"name": "--"}}, "metadata.name", "by its name"),
        ({"metadata": {"name": "a", "namespace": "b"}}, "metadata.namespace", "the run is in team"),
        ({"spec": {"template": {"spec": {"containers": 1}}}}, "containers", "must be a list"),
    ],
)
def test_what_is_wrong_with_it_is_named(change: dict[str, Any], place: str, said: str):
    with pytest.raises(ItemError) as error:
        service({**DEPLOYMENT, **change})
    assert error.value.reason is Reason.RESOURCE_ARGS_INVALID
    assert place in str(error.value)
    assert said in str(error.value)


def test_the_operators_policy_holds_for_it_too():
    opening = {"spec": {"template": {"spec": {"containers": [], "hostNetwork": True}}}}
    for change, policy in (
        (opening, KubernetesPolicy(allow=frozenset())),
        ({}, KubernetesPolicy(allowed_kinds=("batch/v1/Job",))),
    ):
        with pytest.raises(ItemError) as error:
            service({**DEPLOYMENT, **change}, policy)
        assert error.value.reason is Reason.FORBIDDEN
