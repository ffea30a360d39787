"""Planted secrets are looked for wherever somebody else might read: none may be there."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from agent_harness import ENDED, Fleet, RunningAgent
from programs import ControlPlane, Shell, program_environment

pytestmark = [pytest.mark.acceptance, pytest.mark.docker]

QUEUE_SECRET = "planted-queue-secret-0123456789"
REGISTRY_SECRET = "planted-registry-secret-0123456789"
MACRO_SECRET = "planted-macro-secret-0123456789"
CONFIG = f"""
queues: [processes, containers]
max_jobs: 4
registry:
  type: acr
  uri: registry.example/repo
  password: {REGISTRY_SECRET}
agent:
  state_dir: {{state_dir}}
  admin: 127.0.0.1:0
  poll: 0.5
  heartbeat: 1
  macros: [PLANTED]
"""
# The job tells its key and its process to the test, waits for its leave, and then fails.
MEET = """
import os, pathlib, sys
pathlib.Path({key_file!r}).write_text(os.environ["WANDB_API_KEY"])
assert os.environ["QUEUE_SECRET"] and os.environ["MACRO"]
with open({door!r}) as door:
    door.read()
print("leaving with 3")
sys.exit(3)
"""
UPSERT = """mutation Upsert(
  $entity: String!, $queue: String!, $type: String!, $config: JSONString!
) {
  upsertRunQueue(input: {
    entityName: $entity, projectName: "model-registry", queueName: $queue, resourceType: $type,
    resourceConfig: $config
  }) { success }
}"""
AGENTS = """query Agents($entity: String!) {
  project(name: "model-registry", entityName: $entity) { launchAgents { name agentConfig } }
}"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with ControlPlane.start(folder / "server") as control_plane, ExitStack() as programs:
        env = program_environment(folder / "home", url=control_plane.url, key=control_plane.key)
        env["PLANTED"] = MACRO_SECRET
        fleet = Fleet(control_plane, Shell(folder / "work", env=env, programs=programs))
        variables = {"QUEUE_SECRET": QUEUE_SECRET, "MACRO": "${PLANTED}"}
        for queue, resource in (("processes", "local-process"), ("containers", "local-container")):
            config = json.dumps({"resource_args": {resource: {"env": variables}}})
            names = {"entity": fleet.entity, "queue": queue, "type": resource}
            control_plane.ask(UPSERT, **names, config=config)
        yield fleet


@pytest.fixture
def agent(fleet: Fleet, tmp_path: Path) -> Iterator[RunningAgent]:
    with fleet.agent(CONFIG.format(state_dir=tmp_path / "state"), "-v") as running:
        yield running


def secrets_in(text: str | bytes, secrets: dict[str, str]) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    return [name for name, value in secrets.items() if value.encode() in content]


def command_lines() -> dict[int, bytes]:
    """Of all processes of the machine that can be read."""
    found: dict[int, bytes] = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(path.parent.name)] = path.read_bytes()
        except OSError:
            continue
    return found


def check_what_is_shown(fleet: Fleet, agent: RunningAgent, secrets: dict[str, str]) -> None:
    for path in ("/status", "/queues", "/items", "/metrics", "/readyz?verbose", "/debug/tasks"):
        assert secrets_in(agent.get(path)[1], secrets) == [], path
    assert secrets_in(agent.program.output, secrets) == [], "the agent's log"
    checked = fleet.shell.run("launch-async", "agent", "-c", "launch-config.yaml", "--check-config")
    assert "registry.password" in checked
    assert secrets_in(checked, secrets) == [], "the check of the configuration"
    asked = fleet.control_plane.ask(AGENTS, entity=fleet.entity)
    assert secrets_in(json.dumps(asked), secrets) == [], "the agent as the service shows it"


def test_secrets_of_a_process_are_in_no_argument_log_file_or_answer(
    fleet: Fleet, agent: RunningAgent, tmp_path: Path
):
    key_file, door = tmp_path / "key", tmp_path / "door"
    os.mkfifo(door)
    script = MEET.format(key_file=str(key_file), door=str(door))
    item = fleet.push("processes", job=fleet.make_code_job("meet", script))
    with door.open("w"):  # opens when the job does
        secrets = {
            "the agent's key": fleet.control_plane.key,
            "the run's key": key_file.read_text(),
            "the queue's secret": QUEUE_SECRET,
            "the registry's secret": REGISTRY_SECRET,
            "the macro's secret": MACRO_SECRET,
        }
        assert len(set(secrets.values())) == len(secrets)
        lines = command_lines()
        assert any(b"main.py" in line for line in lines.values()), "the job is among them"
        shown = {pid: found for pid, line in lines.items() if (found := secrets_in(line, secrets))}
        assert shown == {}
        check_what_is_shown(fleet, agent, secrets)
        key_file.unlink()
    failed = fleet.wait_for_item("processes", item, ENDED)
    agent.wait_for_status("items", [])
    failed = fleet.item("processes", item)
    assert "exited with code 3" in failed["message"]
    assert secrets_in(json.dumps(failed), secrets) == []
    hidden_run = agent.status()["name"]
    for path in failed["filePaths"]:
        assert secrets_in(fleet.file_of(hidden_run, path), secrets) == [], path
    check_what_is_shown(fleet, agent, secrets)
    check_state_folder(tmp_path / "state", secrets)


def check_state_folder(folder: Path, secrets: dict[str, str]) -> None:
    """The journal holds the item with its key, for its owner's eyes; nothing else holds any."""
    with_secrets: set[str] = set()
    for path in folder.rglob("*"):
        if not path.is_file() or "environments" in path.parts:
            continue
        if secrets_in(path.read_bytes(), secrets):
            with_secrets.add(path.name)
            assert path.stat().st_mode & 0o077 == 0, path
    assert all(re.fullmatch(r"journal\.(db|sqlite3?)(-wal|-shm)?", name) for name in with_secrets)


def test_secrets_of_a_container_are_in_no_label_name_or_argument(
    fleet: Fleet, agent: RunningAgent, tiny_image: str
):
    overrides = {"args": ["sh", "-c", "echo; exec sleep 60"]}
    item = fleet.push("containers", docker={"docker_image": tiny_image}, overrides=overrides)
    agent.wait_for_status("launched", 1)
    run = fleet.item("containers", item)["associatedRunId"]
    found = inspect(f"launch-{run}")
    variables = dict(line.split("=", 1) for line in found["Config"]["Env"])
    secrets = {
        "the agent's key": fleet.control_plane.key,
        "the run's key": variables["WANDB_API_KEY"],
        "the queue's secret": QUEUE_SECRET,
        "the macro's secret": MACRO_SECRET,
    }
    assert variables["QUEUE_SECRET"] == QUEUE_SECRET
    del found["Config"]["Env"]  # the one place where the engine's own users may see them
    assert found["Config"]["Labels"]["launch-async.item"] == item
    assert secrets_in(json.dumps(found), secrets) == []
    lines = command_lines()
    assert [line for line in lines.values() if secrets_in(line, secrets)] == []
    check_what_is_shown(fleet, agent, secrets)
    subprocess.run(["docker", "kill", f"launch-{run}"], check=True, capture_output=True)
    fleet.wait_for_item("containers", item, ENDED)
    agent.wait_for_status("items", [])


def inspect(container: str) -> dict[str, Any]:
    done = subprocess.run(["docker", "inspect", container], check=True, capture_output=True)
    [found] = json.loads(done.stdout)
    return found
