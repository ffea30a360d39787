"""secure_mode: the queue's config is trusted, and only what an item changes of it is checked."""

import re
from pathlib import Path
from typing import Any

import pytest

from launch_async.domain.policy import (
    CLUSTER_KEYS,
    CONTAINER_KEYS,
    LOOSENING_KEYS,
    MAX_NAMED,
    OPENING_KEYS,
    PLACE_KEYS,
    POD_KEYS,
    PROGRAM_VARIABLES,
    QueueDefaults,
    is_for,
    openings,
    refusals,
)
from launch_async.domain.spec import Overrides, RunSpec


def spec_of(resource: str, resource_args: dict[str, Any], **overrides: Any) -> RunSpec:
    made = Overrides(**overrides)
    return RunSpec(
        entity="e",
        project="p",
        image="i",
        resource=resource,
        resource_args=resource_args,
        overrides=made,
    )


def pod(**spec: Any) -> dict[str, Any]:
    return {"kind": "Job", "spec": {"template": {"spec": spec}}}


def refused(
    resource: str, queue: dict[str, Any] | None, item: dict[str, Any], **overrides: Any
) -> tuple[str, ...]:
    defaults = None if queue is None else QueueDefaults(resource=resource, args=queue)
    return refusals(spec_of(resource, item, **overrides), defaults)


POD = "spec.template.spec"


@pytest.mark.parametrize(
    ("item", "keys"),
    [
        (pod(hostPID=True), [f"{POD}.hostPID"]),
        (pod(hostIPC=False), [f"{POD}.hostIPC"]),
        (pod(hostNetwork=True), [f"{POD}.hostNetwork"]),
        (pod(initContainers=[]), [f"{POD}.initContainers"]),
        (pod(initContainers=[{"image": "i"}]), [f"{POD}.initContainers.0.image"]),
        (pod(containers=[{"command": ["sh"]}]), [f"{POD}.containers.0.command.0"]),
        ({"spec": {"groups": [pod(hostNetwork=True)]}}, [f"spec.groups.0.{POD}.hostNetwork"]),
        (pod(containers=[{"args": ["a"], "image": "i"}], nodeSelector={"a": "b"}), []),
        ({}, []),
    ],
)
def test_what_an_item_may_not_set_in_a_pod(item: dict[str, Any], keys: list[str]):
    assert list(refused("kubernetes", {}, item)) == keys


@pytest.mark.parametrize(
    "both",
    [
        pod(hostNetwork=True),
        pod(initContainers=[{"image": "i"}], containers=[{"command": ["sh", "-c", "x"]}]),
    ],
)
def test_what_the_queue_sets_is_trusted(both: dict[str, Any]):
    assert refused("kubernetes", both, both) == ()


def test_the_whole_config_is_the_items_when_the_queues_is_not_known():
    assert refused("kubernetes", None, pod(hostNetwork=True)) == (f"{POD}.hostNetwork",)


def test_another_value_than_the_queues_is_refused():
    assert refused("kubernetes", pod(hostNetwork=False), pod(hostNetwork=True))


def test_dropping_the_queues_command_by_another_list_of_containers_is_refused():
    queue = pod(containers=[{"image": "i", "command": ["safe"]}])
    assert refused("kubernetes", queue, pod(containers=[{"image": "j"}])) == (
        f"{POD}.containers.0.command.0",
    )


def test_one_and_true_are_not_the_same():
    assert refused("kubernetes", pod(hostNetwork=1), pod(hostNetwork=True))


@pytest.mark.parametrize("resource", ["kubernetes", "local-container", "local-process", "another"])
def test_the_entry_point_is_the_jobs_everywhere(resource: str):
    assert refused(resource, {}, {}, entry_point=("sh",)) == ("overrides.entry_point",)


@pytest.mark.parametrize(
    ("queue", "item", "keys"),
    [
        ({}, {"command": "sh"}, ["command"]),
        ({}, {"network": "host"}, ["network"]),
        ({"network": "none"}, {"network": "none", "net": "host"}, ["net"]),
        ({}, {"volume": ["/:/host"]}, ["volume.0"]),
        ({}, {"w": "/x"}, ["w"]),
        ({}, {"env": {"LD_PRELOAD": "x"}}, ["env.LD_PRELOAD"]),
        ({}, {"e": ["PATH=/x"]}, ["env.PATH"]),
        ({"env": ["PATH=/x"]}, {"env": ["A=1"]}, ["env.PATH"]),
        ({"env": ["PATH=/x"]}, {"env": ["PATH=/x", "A=1"]}, []),
        ({}, {"env": {"WANDB_BASE_URL": "http://else"}}, ["env.WANDB_BASE_URL"]),
        ({}, {"memory": "64g", "cpus": 8, "gpus": "all", "env": ["A=1"]}, []),
        ({"command": "sh", "network": "host"}, {"command": "sh", "network": "host"}, []),
    ],
)
def test_what_an_item_may_not_set_of_a_container(
    queue: dict[str, Any], item: dict[str, Any], keys: list[str]
):
    assert list(refused("local-container", queue, item)) == keys


def test_arguments_may_not_take_the_place_of_the_queues_command():
    args = {"command": "safe"}
    assert refused("local-container", args, args, args=("sh",)) == ("overrides.args",)
    assert refused("local-container", {}, {}, args=("sh",)) == ()


def test_a_process_may_not_get_a_variable_that_chooses_its_program():
    assert refused("local-process", {}, {"env": {"PYTHONPATH": "/x"}}) == ("env.PYTHONPATH",)
    assert refused("local-process", {}, {"env": {"A": "b"}}) == ()


def opened(queue: dict[str, Any] | None, item: dict[str, Any]) -> tuple[str, ...]:
    defaults = None if queue is None else QueueDefaults(resource="kubernetes", args=queue)
    return openings(spec_of("kubernetes", item), defaults)


def container(**fields: Any) -> dict[str, Any]:
    return pod(containers=[fields])


ACCOUNT = pod(serviceAccountName="trainer")
FIRST = f"{POD}.containers.0"
PROFILE = "container.apparmor.security.beta.kubernetes.io/launch0"


@pytest.mark.parametrize(
    ("item", "keys"),
    [
        (pod(hostNetwork=True), [f"{POD}.hostNetwork"]),
        (pod(hostUsers=True), [f"{POD}.hostUsers"]),
        (pod(volumes=[{"name": "v", "hostPath": {}}]), [f"{POD}.volumes.0.hostPath"]),
        (container(ports=[{"hostPort": 80}]), [f"{FIRST}.ports.0.hostPort"]),
        (container(securityContext={"runAsUser": 0}), [f"{FIRST}.securityContext.runAsUser"]),
        (container(securityContext={"x": False}), [f"{FIRST}.securityContext.x"]),
        (ACCOUNT, [f"{POD}.serviceAccountName"]),
        ({"spec": {"groups": [ACCOUNT]}}, [f"spec.groups.0.{POD}.serviceAccountName"]),
        (
            {"metadata": {"annotations": {PROFILE: "unconfined"}}},
            [f"metadata.annotations.{PROFILE}"],
        ),
        ({"configFile": "/k", "context": "c"}, ["configFile", "context"]),
        ({"spec": {"seccomp": "unconfined"}}, []),
        (pod(hostPID=False, automountServiceAccountToken=False), []),
        (pod(serviceAccountName=None, hostPath=None), []),
        ({"metadata": {"annotations": {PROFILE: "runtime/default", "a": "unconfined"}}}, []),
        (container(command=["sh"], image="i", env=[{"name": "A"}]), []),
        ({"metadata": {"namespace": "team"}, "namespace": "team"}, []),
    ],
)
def test_what_an_item_opens_of_a_cluster_in_any_mode(item: dict[str, Any], keys: list[str]):
    assert list(opened({}, item)) == keys
    assert list(opened(None, item)) == keys
    assert opened(item, item) == ()
    assert set(keys) <= set(refused("kubernetes", {}, item))


@pytest.mark.parametrize(
    ("queue", "item", "keys"),
    [
        (ACCOUNT, pod(), [f"{POD}.serviceAccountName"]),
        (pod(automountServiceAccountToken=False), pod(), [f"{POD}.automountServiceAccountToken"]),
        (
            container(securityContext={"runAsUser": 1000}),
            container(image="i"),
            [f"{FIRST}.securityContext.runAsUser"],
        ),
        ({"context": "theirs"}, {}, ["context"]),
        (pod(hostNetwork=True, volumes=[{"hostPath": {"path": "/data"}}]), pod(), []),
        (pod(hostNetwork=True), pod(hostNetwork=False), []),
    ],
)
def test_what_an_item_leaves_out_may_open_a_cluster_too(
    queue: dict[str, Any], item: dict[str, Any], keys: list[str]
):
    assert list(opened(queue, item)) == keys


def test_a_template_variable_lets_items_choose_an_account():
    schema = {"account": {"type": "string", "enum": ["small", "large"]}}
    queue = QueueDefaults(
        resource="kubernetes", args=pod(serviceAccountName="{{account}}"), variables=schema
    )
    for account, keys in (("large", ()), ("admin", (f"{POD}.serviceAccountName",))):
        item = spec_of("kubernetes", pod(serviceAccountName=account))
        assert openings(item, queue) == keys


def test_other_targets_have_no_cluster_to_open():
    assert openings(spec_of("local-container", pod(hostNetwork=True)), None) == ()


@pytest.mark.parametrize(
    ("item", "keys"),
    [
        ({"namespace": "n"}, ["namespace"]),
        ({"metadata": {"namespace": "n"}}, ["metadata.namespace"]),
        ({"context": "c"}, ["context"]),
        ({"spec": {"context": "c", "namespace": "n"}}, []),
    ],
)
def test_in_secure_mode_only_the_queue_chooses_the_place(item: dict[str, Any], keys: list[str]):
    assert list(refused("kubernetes", {}, item)) == keys
    assert refused("kubernetes", item, item) == ()


def test_only_a_few_keys_are_named():
    many = pod(initContainers=[{"image": str(number)} for number in range(100)])
    assert len(refused("kubernetes", {}, many)) == MAX_NAMED


VARIABLES: dict[str, dict[str, Any]] = {
    "mode": {"type": "string", "enum": ["fast", "slow"]},
    "count": {"type": "integer", "minimum": 1, "maximum": 4},
    "free": {"type": "string"},
    "net": {"type": "boolean", "enum": [False]},
}


@pytest.mark.parametrize(
    ("template", "value", "allowed"),
    [
        ("{{free}}", "anything", True),
        ("{{ mode }}", "fast", True),
        ("{{mode}}", "evil", False),
        ("{{count}}", 4, True),
        ("{{count}}", 5, False),
        ("{{count}}", True, False),
        ("{{count}}", "4", False),
        ("{{net}}", False, True),
        ("{{net}}", True, False),
        ("run {{mode}}!", "run slow!", True),
        ("run {{mode}}!", "run slow; evil!", False),
        ("run -n {{count}} x", "run -n 3 x", True),
        ("run -n {{count}} x", "run -n 3; evil x", False),
        ("{{free}} and {{free}}", "a and b and c", True),
        ("{{free}} and {{free}}", "a or b", False),
        ("{{unknown}}", "x", False),
        ("{{unknown}}", "{{unknown}}", True),
        ("plain", "plain", True),
    ],
)
def test_a_template_of_the_queue_stands_for_what_its_variables_allow(
    template: str, value: Any, allowed: bool
):
    args = {"command": template}
    defaults = QueueDefaults(resource="local-container", args=args, variables=VARIABLES)
    found = refusals(spec_of("local-container", {"command": value}), defaults)
    assert (found == ()) is allowed


def test_a_long_text_against_many_placeholders_takes_no_long_time():
    template = "{{free}}," * 50
    defaults = QueueDefaults(
        resource="local-container", args={"command": template}, variables=VARIABLES
    )
    text = "," * 4_000 + "x"
    assert refusals(spec_of("local-container", {"command": text}), defaults) == ("command",)


def test_an_item_belongs_to_the_type_of_its_queue():
    assert is_for("local-process", QueueDefaults(resource="local-process", args={}))
    assert not is_for("local-process", QueueDefaults(resource="local-container", args={}))
    assert is_for("vertex", QueueDefaults(resource="gcp-vertex", args={}))


def test_the_page_names_all_that_is_locked():
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    section = page.read_text(encoding="utf-8").partition("#### What an item may not open")[2]
    opening, _, secure = section.partition("Neither the job")[0].partition("#### ")
    always = set(re.findall(r"`([^`]+)`", opening))
    assert always >= OPENING_KEYS | LOOSENING_KEYS | CLUSTER_KEYS
    named = set(re.findall(r"`([^`]+)`", secure))
    assert named | always >= CONTAINER_KEYS | PROGRAM_VARIABLES | POD_KEYS | PLACE_KEYS
