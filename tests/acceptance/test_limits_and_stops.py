"""Our agent with the real Docker engine: what must end is gone, and what is kept says why."""

import json
import subprocess
from pathlib import Path

import pytest
from agent_harness import ENDED, Fleet
from programs import ControlPlane, Shell

pytestmark = [pytest.mark.acceptance, pytest.mark.docker]

CONFIG = """
queues:
  - {{name: short, run_timeout: 2}}
  - long
max_jobs: -1
stopped_run_timeout: 1
agent:
  state_dir: {state_dir}
  admin: 127.0.0.1:0
  poll: 0.2
  heartbeat: 0.5
"""
CANCEL = """mutation Cancel($item: ID!) {
  cancelRunQueueItem(input: { runQueueItemId: $item }) { success }
}"""
SLEEP = {"args": ["sh", "-c", "echo asleep; exec sleep 600"]}


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def fleet(control_plane: ControlPlane, shell: Shell) -> Fleet:
    fleet = Fleet(control_plane, shell)
    fleet.make_queue("short", "local-container")
    fleet.make_queue("long", "local-container")
    return fleet


def containers_of(item: str) -> str:
    words = ["docker", "ps", "--all", "--quiet", "--filter", f"label=launch-async.item={item}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_an_overdue_container_is_gone_and_its_bundle_tells_why(
    fleet: Fleet, state_dir: Path, tiny_image: str
):
    with fleet.agent(CONFIG.format(state_dir=state_dir)) as agent:
        item = fleet.push("short", docker={"docker_image": tiny_image}, overrides=SLEEP)
        fleet.wait_for_item("short", item, ENDED)
        agent.wait_for_status("items", [])
        hidden = agent.status()["name"]
    failed = fleet.item("short", item)
    assert failed["state"] == "FAILED"
    assert "not done within 2 s (`run_timeout of the queue short`)" in failed["message"]
    assert containers_of(item) == ""
    assert failed["filePaths"] == [f"{item}/error/error.log", f"{item}/bundle.json"]
    bundle = json.loads(fleet.file_of(hidden, f"{item}/bundle.json"))
    assert bundle["reason"] == "run_timeout"
    assert bundle["backend"]["image"] == tiny_image
    assert bundle["backend"]["image_digest"].startswith("sha256:")
    assert "asleep" in fleet.file_of(hidden, f"{item}/error/error.log")
    kept = json.loads((state_dir / "bundles" / item / "bundle.json").read_text())
    assert kept == bundle


def test_a_cancelled_container_is_gone_and_its_item_stopped(
    fleet: Fleet, state_dir: Path, tiny_image: str
):
    with fleet.agent(CONFIG.format(state_dir=state_dir)) as agent:
        item = fleet.push("long", docker={"docker_image": tiny_image}, overrides=SLEEP)
        agent.wait_for_status("launched", 1)
        fleet.control_plane.ask(CANCEL, item=item)
        fleet.wait_for_item("long", item, {"STOPPED"}, within_seconds=60)
        agent.wait_for_status("items", [])
    assert containers_of(item) == ""
