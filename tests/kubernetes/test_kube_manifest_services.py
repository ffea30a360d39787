"""What runs beside a run is told of it, and goes with it."""

from typing import Any

import pytest
from kube_orders import ENVIRONMENT, an_order, manifest_of

from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.services import make_service
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


def service(
    config: dict[str, Any], policy: KubernetesPolicy | None = None, **more: Any
) -> Manifest:
    return make_service(config, ORDER, policy or KubernetesPolicy(), run=RUN, **more)


def test_it_keeps_its_name_and_comes_into_the_runs_namespace():
    made = service({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {}})
    assert (made.name, made.namespace) == ("db", "team")
    assert made.body["metadata"]["name"] == "db"
    assert made.body["metadata"]["namespace"] == "team"
    assert made.body["spec"] == {}


def test_it_goes_with_the_run_that_it_is_for():
    assert "ownerReferences" not in service(DEPLOYMENT).body["metadata"]
    (owner,) = service(DEPLOYMENT, owner_uid="uid-1").body["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "batch/v1", "kind": "Job", "name": RUN.name, "uid": "uid-1"}


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
