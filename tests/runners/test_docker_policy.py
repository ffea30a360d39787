"""What opens the agent's machine needs the operator's leave."""

from pathlib import Path
from typing import Any

import pytest
from runner_backends import DockerBackend, make_order

from launch_async.adapters.runners.docker.options import container_body, pull_policy
from launch_async.adapters.runners.docker.policy import OPENING, DockerPolicy, VolumeRule
from launch_async.domain.errors import ItemError, Reason
from launch_async.ports.runner import ImageWork

BACKEND = DockerBackend("unused", Path("/nowhere"), Path("/nowhere"))
WORK = ImageWork(image="busybox")


def body(policy: DockerPolicy, **resource_args: Any) -> dict[str, Any]:
    order = make_order(BACKEND, "", resource_args=resource_args)
    return container_body(order, WORK, policy)


@pytest.mark.parametrize("key", [*OPENING, "user"])
def test_a_key_that_opens_the_machine_is_refused_until_it_is_allowed(key: str):
    values: dict[str, Any] = {"privileged": True, "device": "/dev/null", "add-host": "a:1.2.3.4"}
    given = {key: values.get(key, "x")}
    with pytest.raises(ItemError, match=f"add {key} to agent.docker.allow") as error:
        body(DockerPolicy(), **given)
    assert error.value.reason is Reason.FORBIDDEN
    made, plain = body(DockerPolicy(allow=frozenset({key})), **given), body(DockerPolicy())
    assert (made["HostConfig"], made.get("User")) != (plain["HostConfig"], None)


def rules(*texts: str) -> DockerPolicy:
    return DockerPolicy(volumes=tuple(VolumeRule.parse(text) for text in texts))


def test_folders_below_a_rule_are_mounted_and_read_only_ones_stay_so():
    policy = rules("/data:ro", "/scratch")
    made = body(policy, volume=["/data/sets:/in:rw", "/scratch:/out"])
    assert made["HostConfig"]["Binds"] == ["/data/sets:/in:ro", "/scratch:/out"]


@pytest.mark.parametrize(
    "source",
    ["/", "/etc", "/database", "/data/../etc", "/data/..", "//etc", "/var/run/docker.sock"],
)
def test_other_folders_are_refused(source: str):
    with pytest.raises(ItemError, match="no folder that this agent mounts") as error:
        body(rules("/data"), volume=f"{source}:/in")
    assert error.value.reason is Reason.FORBIDDEN


def test_a_link_out_of_an_allowed_folder_is_refused(tmp_path: Path):
    (tmp_path / "out").symlink_to("/etc")
    with pytest.raises(ItemError, match="no folder that this agent mounts"):
        body(rules(str(tmp_path)), volume=f"{tmp_path}/out:/in")


@pytest.mark.parametrize("entry", ["data", ":/in", "/data", "/data:in", "/data:/in:shared"])
def test_a_volume_that_is_none_is_refused(entry: str):
    with pytest.raises(ItemError, match="`volume`"):
        body(rules("/data"), volume=entry)


def test_named_volumes_need_leave():
    with pytest.raises(ItemError, match="add volume to"):
        body(DockerPolicy(), volume="cache:/cache")
    made = body(DockerPolicy(allow=frozenset({"volume"})), volume="cache:/cache")
    assert made["HostConfig"]["Binds"] == ["cache:/cache"]


@pytest.mark.parametrize("rule", ["data", "/data:rx", ""])
def test_a_rule_that_is_none_is_named(rule: str):
    with pytest.raises(ValueError, match="must look like /folder"):
        VolumeRule.parse(rule)


def test_bare_names_of_variables_get_the_agents_values_if_shared():
    policy = DockerPolicy(env=("HF_*",), environ={"HF_TOKEN": "t", "WANDB_API_KEY": "k"})
    assert "HF_TOKEN=t" in body(policy, env=["HF_TOKEN", "A=1"])["Env"]
    with pytest.raises(ItemError, match=r"agent\.docker\.env") as error:
        body(policy, env=["WANDB_API_KEY"])
    assert "k" not in str(error.value).split()
    with pytest.raises(ItemError, match="not set where the agent runs"):
        body(policy, env=["HF_HOME"])


def test_networks_of_ones_own_are_named_by_the_operator():
    policy = DockerPolicy(networks=frozenset({"training"}))
    assert body(policy, network="training")["HostConfig"]["NetworkMode"] == "training"
    for network in ("other", "container:abc"):
        with pytest.raises(ItemError, match="must be one of bridge, host, none, training"):
            body(policy, network=network)


def test_flags_of_older_examples_change_nothing():
    made, plain = body(DockerPolicy(), rm=True, detach=True), body(DockerPolicy())
    assert (made["HostConfig"], made.keys()) == (plain["HostConfig"], plain.keys())


def test_the_queue_says_when_images_are_fetched_else_the_operator():
    order = make_order(BACKEND, "", resource_args={"pull": "always"})
    assert pull_policy(order, DockerPolicy(pull="never")) == "always"
    assert pull_policy(make_order(BACKEND, ""), DockerPolicy(pull="never")) == "never"
    with pytest.raises(ItemError, match="missing, always or never"):
        pull_policy(make_order(BACKEND, "", resource_args={"pull": "often"}), DockerPolicy())
