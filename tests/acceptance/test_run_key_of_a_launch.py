"""Launched runs log under keys of their own, by our agent and by W&B's, from start to end."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from agent_harness import ENDED, Fleet
from programs import ControlPlane, Shell, program_environment

pytestmark = pytest.mark.acceptance

CONFIG = """
queues: [processes]
agent:
  state_dir: {state_dir}
  admin: 127.0.0.1:0
  poll: 0.5
"""
# The job tells its key to the test, and looks for it where everybody on the machine could see it.
TRAIN = """
import os, pathlib, wandb

key = os.environ["WANDB_API_KEY"]
with wandb.init() as run:
    pathlib.Path(run.config["key_file"]).write_text(key)
    run.log({"loss": 1.0})
    artifact = wandb.Artifact("model", "model")
    with artifact.new_file("weights") as file:
        file.write("w")
    run.log_artifact(artifact).wait()
    seen = 0
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            seen += key.encode() in path.read_bytes()
        except OSError:
            pass
    run.summary["seen"] = seen
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with ControlPlane.start(folder / "server") as control_plane, ExitStack() as programs:
        env = program_environment(folder / "home", url=control_plane.url, key=control_plane.key)
        fleet = Fleet(control_plane, Shell(folder / "work", env=env, programs=programs))
        fleet.make_queue("processes", "local-process")
        fleet.make_code_job("train", TRAIN, requirements="wandb==0.31.*\n")
        yield fleet


def push(fleet: Fleet, key_file: Path) -> str:
    overrides = {"run_config": {"key_file": str(key_file)}}
    return fleet.push("processes", job=f"{fleet.entity}/jobs/train:latest", overrides=overrides)


def status_of(fleet: Fleet, key: str) -> int:
    """Ask who a key belongs to; return the HTTP status."""
    request = urllib.request.Request(  # noqa: S310 (our own http address)
        f"{fleet.control_plane.url}/graphql",
        data=b'{"query": "{ viewer { id } }"}',
        headers={"Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode()},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_our_agent_gives_the_run_its_own_key_and_shows_it_to_nobody(
    fleet: Fleet, tmp_path: Path, made_environments: Callable[[Path], Path]
) -> None:
    config = CONFIG.format(state_dir=made_environments(tmp_path / "state"))
    with fleet.agent(config) as agent:
        item = push(fleet, tmp_path / "key")
        ended = fleet.wait_for_item("processes", item, ENDED, within_seconds=180)
        agent.wait_for_status("items", [])
        output = agent.program.output
    assert ended["state"] == "FINISHED", ended
    key = (tmp_path / "key").read_text()
    assert key != fleet.control_plane.key
    run = fleet.run(ended["associatedRunId"])
    assert run is not None
    assert run["state"] == "finished"
    assert json.loads(run["summaryMetrics"])["seen"] == 0
    assert status_of(fleet, key) == 401
    assert key not in output
    assert key not in fleet.control_plane.program.output
    left = [path for path in (tmp_path / "state" / "runs").rglob("*") if path.is_file()]
    assert not [path for path in left if key.encode() in path.read_bytes()]


def test_wandbs_agent_gives_the_run_its_own_key(fleet: Fleet, tmp_path: Path) -> None:
    words = ["--queue", "processes", "--entity", fleet.entity]
    agent = fleet.shell.start("wandb", "launch-agent", *words)
    agent.wait_for("polling on queues")
    item = push(fleet, tmp_path / "key")
    ended = fleet.wait_for_item("processes", item, ENDED, within_seconds=180)
    agent.end()
    assert ended["state"] == "FINISHED", ended
    key = (tmp_path / "key").read_text()
    assert key != fleet.control_plane.key
    assert status_of(fleet, key) == 401
