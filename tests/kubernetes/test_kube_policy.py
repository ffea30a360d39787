"""What an operator may forbid queues; without a word of the operator they have all."""

from typing import Any

import pytest
from kube_orders import manifest_of

from launch_async.adapters.runners.kubernetes.manifest import Place, place_of
from launch_async.adapters.runners.kubernetes.policy import OPENINGS, KubernetesPolicy
from launch_async.domain.errors import ItemError, Reason


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": spec}}}


def container(**fields: Any) -> dict[str, Any]:
    return pod(containers=[fields])


def context(**fields: Any) -> dict[str, Any]:
    return container(securityContext=fields)


PROFILE = {"container.apparmor.security.beta.kubernetes.io/launch0": "unconfined"}
USES: list[tuple[str, dict[str, Any]]] = [
    ("allowPrivilegeEscalation", context(allowPrivilegeEscalation=True)),
    ("automountServiceAccountToken", pod(automountServiceAccountToken=True)),
    ("capabilities", context(capabilities={"add": ["NET_ADMIN"]})),
    ("context", {"context": "other"}),
    ("hostIPC", pod(hostIPC=True)),
    ("hostNetwork", pod(hostNetwork=True)),
    ("hostPID", pod(hostPID=True)),
    ("hostPath", pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}])),
    ("hostPort", container(ports=[{"containerPort": 80, "hostPort": 80}])),
    ("hostProcess", pod(securityContext={"windowsOptions": {"hostProcess": True}})),
    ("mountPropagation", container(volumeMounts=[{"mountPropagation": "Bidirectional"}])),
    ("nodeName", pod(nodeName="node-7")),
    ("priorityClassName", pod(priorityClassName="system-node-critical")),
    ("privileged", context(privileged=True)),
    ("procMount", context(procMount="Unmasked")),
    (
        "serviceAccountToken",
        pod(volumes=[{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
    ),
    ("unconfined", context(seccompProfile={"type": "Unconfined"})),
    ("unconfined", pod(securityContext={"appArmorProfile": {"type": "Unconfined"}})),
    ("unconfined", {"spec": {"template": {"metadata": {"annotations": PROFILE}}}}),
]


def test_each_opening_is_tried():
    assert {opening for opening, _ in USES} == OPENINGS


@pytest.mark.parametrize(("opening", "args"), USES)
def test_what_opens_the_cluster_is_the_operators_to_allow(opening: str, args: dict[str, Any]):
    manifest_of(args)
    manifest_of(args, policy=KubernetesPolicy(allow=frozenset({opening})))
    for allow in (frozenset[str](), OPENINGS - {opening}):
        with pytest.raises(ItemError, match=rf"add {opening} to agent\.kubernetes\.allow") as error:
            manifest_of(args, policy=KubernetesPolicy(allow=allow))
        assert error.value.reason is Reason.FORBIDDEN


def test_a_custom_resource_hides_nothing():
    args = {
        "apiVersion": "example.com/v1",
        "kind": "Sweep",
        "spec": {"groups": [{"pods": {"odd": {"hostNetwork": True}}}]},
    }
    with pytest.raises(ItemError, match=r"`spec\.groups\[0\]\.pods\.odd\.hostNetwork` is refused"):
        manifest_of(args, policy=KubernetesPolicy(allow=frozenset()))


@pytest.mark.parametrize(
    "args",
    [
        {},
        context(allowPrivilegeEscalation=False, capabilities={"drop": ["ALL"]}, privileged=False),
        pod(hostNetwork=False, hostPID=None, automountServiceAccountToken=False, nodeName=""),
        container(volumeMounts=[{"mountPropagation": "HostToContainer"}], ports=[{"hostPort": 0}]),
        context(seccompProfile={"type": "RuntimeDefault"}, procMount="Default", runAsUser=1000),
    ],
)
def test_what_opens_nothing_needs_no_leave(args: dict[str, Any]):
    manifest_of(args, policy=KubernetesPolicy(allow=frozenset(), service_accounts=()))


@pytest.mark.parametrize("key", ["serviceAccountName", "serviceAccount"])
def test_service_accounts_are_named_by_patterns(key: str):
    policy = KubernetesPolicy(service_accounts=("train-*", "default"))
    manifest_of(pod(**{key: "train-large"}), policy=policy)
    manifest_of(pod(**{key: ""}), policy=policy)
    for name in ("admin", "Train-x", {"name": "train-x"}):
        with pytest.raises(ItemError, match=r"service_accounts: train-\*, default") as error:
            manifest_of(pod(**{key: name}), policy=policy)
        assert error.value.reason is Reason.FORBIDDEN
    manifest_of(pod(**{key: "admin"}))


@pytest.mark.parametrize(
    "args", [{"namespace": "other"}, {"metadata": {"namespace": "other"}}, {"namespace": "xteam-a"}]
)
def test_a_namespace_that_is_not_open_is_refused(args: dict[str, Any]):
    policy = KubernetesPolicy(namespaces=("wandb", "team-*"))
    with pytest.raises(ItemError, match=r"agent\.kubernetes\.namespaces: wandb, team-\*") as error:
        manifest_of(args, policy=policy)
    assert error.value.reason is Reason.FORBIDDEN
    assert manifest_of({"namespace": "team-a"}, policy=policy).namespace == "team-a"


def test_the_default_namespace_must_be_open_too():
    with pytest.raises(ItemError, match="the namespace wandb is not open"):
        manifest_of({}, policy=KubernetesPolicy(namespaces=("team-*",)))


def test_kinds_are_named_by_patterns():
    policy = KubernetesPolicy(allowed_kinds=("batch/v1/Job", "*/RayJob"))
    manifest_of({}, policy=policy)
    manifest_of({"apiVersion": "ray.io/v1", "kind": "RayJob"}, policy=policy)
    with pytest.raises(ItemError, match="v1/Pod is no kind that this agent makes") as error:
        manifest_of({"apiVersion": "v1", "kind": "Pod"}, policy=policy)
    assert error.value.reason is Reason.FORBIDDEN


def test_a_kubeconfig_must_be_among_those_that_the_operator_lists():
    args = {"configFile": "/etc/clusters/b", "context": "c", "namespace": "n"}
    wanted = Place(config_file="/etc/clusters/b", context="c", namespace="n")
    assert place_of(args, KubernetesPolicy()) == wanted
    assert place_of(args, KubernetesPolicy(config_files=("/etc/clusters/b",))) == wanted
    for files in ((), ("/etc/clusters/a",)):
        with pytest.raises(ItemError, match=r"agent\.kubernetes\.config_files") as error:
            place_of(args, KubernetesPolicy(config_files=files))
        assert error.value.reason is Reason.FORBIDDEN
    assert place_of({}, KubernetesPolicy(config_files=())) == Place()
