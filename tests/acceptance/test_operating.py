"""An operator's walk: a real agent, a real container, and the commands of docs/operating.md."""

import json
import signal
from pathlib import Path

import pytest
from agent_harness import Fleet
from programs import ControlPlane, Shell

pytestmark = [pytest.mark.acceptance, pytest.mark.docker, pytest.mark.any_database]

TOKEN = "0123456789abcdef" * 4
CONFIG = """
queues:
  - name: containers
    max_jobs: {max_jobs}
max_jobs: -1
stopped_run_timeout: 1
agent:
  state_dir: {folder}/state
  admin: 127.0.0.1:0
  admin_token_file: {folder}/token
  poll: 0.2
  poll_max: 0.5
  heartbeat: 1
  grace: 0
"""
COUNTS = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done"


@pytest.fixture
def fleet(control_plane: ControlPlane, shell: Shell) -> Fleet:
    fleet = Fleet(control_plane, shell)
    fleet.make_queue("containers", "local-container")
    return fleet


def test_an_agent_is_watched_changed_explained_and_drained(
    fleet: Fleet, tiny_image: str, tmp_path: Path
):
    (tmp_path / "token").write_text(TOKEN)
    changed = tmp_path / "work" / "launch-config.yaml"
    settings = CONFIG.format(max_jobs=1, folder=tmp_path)
    spec = {
        "docker": {"docker_image": tiny_image},
        "overrides": {"entry_point": ["sh", "-c", COUNTS]},
    }
    with fleet.agent(settings) as agent:
        address = agent.admin.removeprefix("http://")

        def ask(*words: str, code: int = 0) -> str:
            connection = ["--admin", address, "--admin-token-file", str(tmp_path / "token")]
            return fleet.shell.run("launch-async", *words, *connection, code=code)

        first = fleet.push("containers", **spec)
        second = fleet.push("containers", **spec)
        fleet.wait_for_item("containers", first, {"RUNNING", "CLAIMED"})
        follower = fleet.shell.start(
            "launch-async", "item", "logs", "-f", first, "--admin", address
        )
        follower.wait_for("line 3")
        assert "max_jobs is 1 and 1 are in use" in ask("item", "explain", second, code=1)
        assert "running" in ask("item", "explain", first)
        assert "[+]backend/docker ok" in ask("agent", "status", "--check", "readyz")

        changed.write_text(CONFIG.format(max_jobs="many", folder=tmp_path))
        agent.program.process.send_signal(signal.SIGHUP)
        agent.program.wait_for("configuration not reloaded")
        changed.write_text(CONFIG.format(max_jobs=2, folder=tmp_path))
        agent.program.process.send_signal(signal.SIGHUP)
        agent.program.wait_for(r"queue containers: max_jobs: 1 -> 2")
        fleet.wait_for_item("containers", second, {"RUNNING", "CLAIMED"})
        assert ask("agent", "reload") == "nothing changed\n"

        ask("agent", "pause", "containers")
        third = fleet.push("containers", **spec)
        assert "the queue is paused" in ask("agent", "explain", "containers")
        ask("item", "cancel", first)
        ask("item", "cancel", second)
        agent.wait_for_status("items", [])
        assert follower.wait(within_seconds=30) == 0
        status = json.loads(ask("agent", "status", "--json"))
        assert status["launched"] == 2
        assert fleet.item("containers", third)["state"] == "PENDING"

        ask("agent", "drain")
        assert agent.program.wait(within_seconds=30) == 0
    with fleet.agent(settings) as agent:
        address = agent.admin.removeprefix("http://")
        assert "paused by hand" in ask("agent", "status")
        ask("agent", "resume", "containers")
        fleet.wait_for_item("containers", third, {"RUNNING", "CLAIMED"})
        ask("agent", "drain")  # which waits, whatever the grace
        agent.wait_for_status("state", "stopping")
        assert "waits for its items" in ask("agent", "status")
        ask("item", "cancel", third)
        assert agent.program.wait(within_seconds=30) == 0
    assert TOKEN not in agent.program.output
