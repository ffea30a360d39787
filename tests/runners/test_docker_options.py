"""Resource arguments for Docker mean what `docker run` means by them."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from runner_backends import DockerBackend, make_order

from launch_async.adapters.runners.docker.options import container_body, is_loopback
from launch_async.domain.errors import ItemError, Reason
from launch_async.ports.runner import ImageWork
from launch_async.testing import SECRET

BACKEND = DockerBackend("unused", Path("/nowhere"), Path("/nowhere"))
WORK = ImageWork(image="registry.example/team/image:tag")


def body(resource_args: dict[str, Any], **more: Any) -> dict[str, Any]:
    order = make_order(BACKEND, "", resource_args=resource_args, **more)
    return container_body(order, WORK)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"memory": "512m"}, "Memory", 512 << 20),
        ({"m": "1.5g"}, "Memory", 3 << 29),
        ({"memory": 1048576}, "Memory", 1 << 20),
        ({"memory-reservation": "64MiB"}, "MemoryReservation", 64 << 20),
        ({"memory-swap": -1}, "MemorySwap", -1),
        ({"shm-size": "2gb"}, "ShmSize", 2 << 30),
        ({"cpus": "1.5"}, "NanoCpus", 1_500_000_000),
        ({"cpu": 2}, "NanoCpus", 2_000_000_000),
        ({"cpu-shares": "512"}, "CpuShares", 512),
        ({"cpuset-cpus": "0-3"}, "CpusetCpus", "0-3"),
        ({"pids-limit": 20}, "PidsLimit", 20),
        ({"network": "none"}, "NetworkMode", "none"),
        ({"net": "bridge"}, "NetworkMode", "bridge"),
        (
            {"ulimit": ["nofile=1024:2048", "core=0"]},
            "Ulimits",
            [
                {"Name": "nofile", "Soft": 1024, "Hard": 2048},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
        ),
    ],
)
def test_limits_are_handed_to_the_engine(given: dict[str, Any], field: str, value: Any) -> None:
    assert body(given)["HostConfig"][field] == value


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("all", {"Count": -1}),
        (2, {"Count": 2}),
        ("device=0,1", {"DeviceIDs": ["0", "1"]}),
        ('"device=0,1"', {"DeviceIDs": ["0", "1"]}),
        ("count=3", {"Count": 3}),
    ],
)
def test_gpus_are_requested_as_devices(given: Any, wanted: dict[str, Any]) -> None:
    (request,) = body({"gpus": given})["HostConfig"]["DeviceRequests"]
    assert request == {"Driver": "", "Capabilities": [["gpu"]], **wanted}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"memmory": "1g"}, "Did you mean `memory`"),
        ({"whatever": 1}, "Allowed: add-host, cap-add, "),
        ({"mount": "type=bind"}, "write it as `volume`"),
        ({"env-file": "/etc/x"}, "by `env`"),
        ({"volume": "data"}, "must look like SOURCE:/target"),
        ({"label": "launch-async.item=x"}, "the agent's own"),
        ({"memory": "lots"}, "such as 512m"),
        ({"cpus": "many"}, "number of CPUs"),
        ({"gpus": "some"}, "must be all, a number"),
        ({"network": "container:other"}, "one of bridge, host, none"),
        ({"env": ["WANDB_API_KEY"]}, "does not share"),
        ({"ulimit": "nofile"}, "must look like"),
        ({"memory": True}, "not true"),
        ({"command": "echo 'open"}, "cannot be split"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ItemError, match=words) as wrong:
        body(given)
    assert wrong.value.reason is Reason.RESOURCE_ARGS_INVALID


def test_args_come_before_the_queues_command() -> None:
    assert body({"command": "echo 'a b' c"})["Cmd"] == ["echo", "a b", "c"]
    assert body({"command": "echo"}, args=("--lr", "1"))["Cmd"] == ["--lr", "1"]
    assert "Cmd" not in body({})


def test_an_entry_point_overrides_the_images() -> None:
    order = make_order(BACKEND, "")
    work = msgspec.structs.replace(WORK, entrypoint=("python", "x.py"))
    assert container_body(order, work)["Entrypoint"] == ["python", "x.py"]
    assert "Entrypoint" not in container_body(order, WORK)


def test_a_name_becomes_a_label_beside_ours() -> None:
    labels = body({"name": "mine"}, item_id="item-7")["Labels"]
    assert labels["launch-async.name"] == "mine"
    assert labels["launch-async.item"] == "item-7"


def test_a_secret_is_in_the_environment_and_nowhere_else() -> None:
    made = body({"env": {"A": 1}})
    assert f"WANDB_API_KEY={SECRET}" in made.pop("Env")
    assert SECRET not in str(made)


def test_an_image_name_that_would_lead_elsewhere_is_refused() -> None:
    order = make_order(BACKEND, "")
    for image in ("", "../containers/x", "a?b", "-x"):
        with pytest.raises(ItemError, match="no name of an image"):
            container_body(order, ImageWork(image=image))


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:8080", True),
        ("http://127.0.0.1:8080/path", True),
        ("http://127.1.2.3", True),
        ("http://[::1]:80", True),
        ("https://api.wandb.ai", False),
        ("http://10.0.0.1:8080", False),
        ("http://localhost.example.com", False),
        ("", False),
    ],
)
def test_a_control_plane_on_this_machine_is_recognised(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback
    mode = body({}, environment={"WANDB_BASE_URL": url})["HostConfig"].get("NetworkMode")
    assert mode == ("host" if loopback else None)


def test_a_network_that_is_asked_for_is_kept() -> None:
    made = body({"network": "none"}, environment={"WANDB_BASE_URL": "http://localhost"})
    assert made["HostConfig"]["NetworkMode"] == "none"
