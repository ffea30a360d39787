"""A site where faults happen: queues, proxies, one agent's lives, and witnesses that are not ours.

A process appends `begin NAME` and `end NAME` to a file; a container is seen by the engine's events.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from agent_harness import ENDED, Fleet, RunningAgent
from engine_events import EngineEvents
from programs import Program, pause_seconds
from proxy import Proxy

ITEM_LABEL = "launch-async.item"
LAPSE = """
UPDATE queue_items SET lease_expires_at = ? WHERE state = 'LEASED' AND queue_id IN (
  SELECT id FROM run_queues WHERE name IN (SELECT value FROM json_each(?)))
"""
LONG_AGO = "2000-01-01 00:00:00.000000"
PLAY = """
import os, sys, time
witness, name, until, code = sys.argv[1:]

def say(word):
    with open(witness, "a") as file:  # one write, to the file's end
        file.write(f"{word} {name}\\n")

say("begin")
while until and not os.path.exists(until):
    time.sleep(0.1)
print(name, "leaves", flush=True)
say("end")
sys.exit(int(code))
"""


SLOW = """
import sys
from slow_thing import WORDS
print(WORDS)
sys.exit(3)
"""
SLOW_BACKEND = """
import os, pathlib, time, zipfile

def build_wheel(folder, *_, **__):
    gate = pathlib.Path(os.environ["PIP_FAULTS_GATE"])
    with gate.with_name("builds").open("a") as builds:
        builds.write("begin\\n")
    while not gate.exists():
        time.sleep(0.1)
    if gate.read_text():
        raise SystemExit(gate.read_text())
    name, info = "slow_thing-1-py3-none-any.whl", "slow_thing-1.dist-info/"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("slow_thing.py", "WORDS = 'slow words'")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\n"
                       "Name: slow-thing\\nVersion: 1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: faults\\n"
                       "Root-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""
"""Builds as long as a file is missing, and fails with what the file says; asks no index."""


class Site:
    """Queues, proxies and one state folder on a server that other tests use too."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        folder: Path,
        api: Proxy,
        engine: Proxy | None,
        ask: Callable[[str], str | Path],
    ) -> None:
        self.fleet = fleet
        self.api = api
        self.folder = folder
        self.state_dir = folder / "state"
        self.witness = folder / "witness"
        self.pushed: dict[str, str] = {}
        """Queue by item."""
        self.identity = uuid.uuid4().hex
        """Of the agent, written before its first life: other servers have items of the same ids."""
        self.state_dir.mkdir()
        (self.state_dir / "identity").write_text(self.identity)
        self._engine = engine
        self._ask = ask

    @property
    def engine(self) -> Proxy:
        assert self._engine is not None, "mark the test docker"
        return self._engine

    def queue(self, resource: str, name: str = "q") -> str:
        """A queue of this test's own."""
        made = f"{name}-{self.folder.name[-30:]}"
        self.fleet.make_queue(made, resource)
        if resource == "local-process" and not (self.state_dir / "envs").exists():
            base = Path(self._ask("base_environment"))
            shutil.copytree(base, self.state_dir / "envs", symlinks=True)
        return made

    def process(self, queue: str, name: str, *, until: Path | None = None, code: int = 0) -> str:
        """Push a process that goes on until a file is there."""
        args = [str(self.witness), name, str(until or ""), str(code)]
        return self.push(queue, job=self._ask("play_job"), overrides={"args": args})

    def container(self, queue: str, script: str = "exec sleep 600", image: str = "") -> str:
        image = image or str(self._ask("tiny_image"))
        args = ["sh", "-c", script]
        return self.push(queue, docker={"docker_image": image}, overrides={"args": args})

    def push(self, queue: str, **spec: Any) -> str:
        item = self.fleet.push(queue, **spec)
        self.pushed[item] = queue
        return item

    @property
    def gate(self) -> Path:
        """Environments of the slow job are made once this file is there."""
        return self.folder / "gate"

    def slow(self, queue: str) -> str:
        """Push a job whose environment waits for the gate; it exits with 3."""
        return self.push(queue, job=self._ask("slow_job"))

    def builds(self) -> int:
        """How often an installer began."""
        path = self.gate.with_name("builds")
        return len(path.read_text().splitlines()) if path.exists() else 0

    @contextmanager
    def agent(
        self,
        *queues: str | Mapping[str, Any],
        section: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        **top: Any,
    ) -> Iterator["Life"]:
        """One life of the site's agent; it may be killed in the block."""
        self.configure(*queues, section=section, **top)
        words = ["launch-async", "agent", "-c", "launch-config.yaml"]
        own = {"PIP_FAULTS_GATE": str(self.gate)} | dict(env or {})
        program = self.fleet.shell.start(*words, **own)
        try:
            yield Life(program)
        finally:
            program.process.send_signal(signal.SIGCONT)
            program.end()
            print(program.output)  # noqa: T201 - shown with a failure

    def configure(
        self,
        *queues: str | Mapping[str, Any],
        section: Mapping[str, Any] | None = None,
        **top: Any,
    ) -> None:
        """Write the agent's configuration, which is JSON: that is YAML too."""
        own = {
            "state_dir": str(self.state_dir),
            "admin": "127.0.0.1:0",
            "poll": 0.3,
            "poll_max": 0.5,
            "heartbeat": 0.5,
            "grace": 1,
        }
        config = {"queues": list(queues), "max_jobs": -1, "stopped_run_timeout": 0} | top
        config["agent"] = own | dict(section or {})
        self.fleet.shell.write("launch-config.yaml", json.dumps(config))

    def item(self, item: str) -> dict[str, Any]:
        return self.fleet.item(self.pushed[item], item)

    def end_of(self, item: str, *, within_seconds: float = 60) -> dict[str, Any]:
        return self.fleet.wait_for_item(
            self.pushed[item], item, ENDED, within_seconds=within_seconds
        )

    def wait_for(self, item: str, state: str, *, within_seconds: float = 30) -> None:
        self.fleet.wait_for_item(self.pushed[item], item, {state}, within_seconds=within_seconds)

    def lapse(self, *, stopped: int = 0) -> None:
        """All leases of this test's queues end now: a minute passes at once.

        What a dead agent still had under way comes to its end first, or it would pop again;
        `stopped` connections are held.
        """
        wait_until(lambda: self.api.under_way <= stopped)
        path = self.fleet.control_plane.folder / "launch-async.db"
        queues = json.dumps(sorted(set(self.pushed.values())))
        with closing(sqlite3.connect(path, timeout=20)) as database, database:
            moved = database.execute(LAPSE, (LONG_AGO, queues))
            assert moved.rowcount, "nothing is leased"

    def events(self) -> EngineEvents:
        """What the engine says of this agent's containers."""
        return EngineEvents(f"label=launch-async.identity={self.identity}")

    def begun(self) -> Counter[str]:
        """How often each process began, as it says itself."""
        if not self.witness.exists():
            return Counter()
        words = [line.split() for line in self.witness.read_text().splitlines()]
        return Counter(name for word, name in words if word == "begin")

    def wait_until_begun(self, *names: str, within_seconds: float = 30) -> None:
        wait_until(lambda: set(names) <= set(self.begun()), within_seconds=within_seconds)

    def containers(self) -> dict[str, str]:
        """The engine's containers of this test's items that are there: item -> id."""
        mine = f"label=launch-async.identity={self.identity}"
        shown = f'{{{{.ID}}}} {{{{.Label "{ITEM_LABEL}"}}}}'
        listed = run("docker", "ps", "-a", "--no-trunc", "--filter", mine, "--format", shown)
        parts = [line.partition(" ") for line in listed.splitlines()]
        return {item: container for container, _, item in parts}

    def wait_until_running(self, *items: str) -> None:
        """By the engine's word."""

        def all_run() -> bool:
            there = self.containers()
            if not set(items) <= set(there):
                return False
            words = ("docker", "inspect", "-f", "{{.State.Running}}", *(there[i] for i in items))
            # One that is just being made is listed before it can be inspected.
            asked = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            return asked.returncode == 0 and set(asked.stdout.split()) == {"true"}

        wait_until(all_run)

    def secrets_in_files(self) -> list[str]:
        """Files of the state folder that have the key in them."""
        key = self.fleet.control_plane.key.encode()
        paths = [path for path in self.state_dir.rglob("*") if path.is_file()]
        return [str(path) for path in paths if "envs" not in path.parts and key in _bytes(path)]

    def clean_up(self) -> None:
        """End what the agent let go."""
        if self._engine is not None and (left := self.containers()):
            run("docker", "rm", "-f", "-v", *left.values())
        for path in self.state_dir.glob("runs/*/started.json"):
            with suppress(OSError, ValueError):
                os.killpg(json.loads(path.read_text())["job_pid"], signal.SIGKILL)


class Life:
    """One life of the agent."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._admin: RunningAgent | None = None

    @property
    def pid(self) -> int:
        return self.program.process.pid

    @property
    def admin(self) -> RunningAgent:
        """Its admin endpoint, once the agent polls."""
        if self._admin is None:
            url = self.program.wait_for(r'"url": "(http://[^"]+)", "event": "admin endpoint"')[1]
            self.program.wait_for("agent registered")
            self._admin = RunningAgent(self.program, url)
        return self._admin

    def kill(self) -> None:
        """SIGKILL to the agent alone: what it started stays."""
        self.program.process.kill()
        self.program.process.wait(10)

    def signal(self, number: int) -> None:
        self.program.process.send_signal(number)

    def settled(self, *, within_seconds: float = 30) -> None:
        """No item is open and nothing was wrongly counted (invariant I3)."""
        self.admin.wait_for_status("items", [], within_seconds=within_seconds)
        status = self.admin.status()
        assert status["drift"] == 0
        assert all(not limit["used"] for limit in status["limits"]), status["limits"]

    def metric(self, name: str) -> float:
        """A metric without labels, or with those in `name`."""
        lines = self.admin.get("/metrics")[1].splitlines()
        found = [line for line in lines if line.startswith(f"{name} ")]
        assert found, f"no metric {name}"
        return float(found[0].rsplit(" ", 1)[1])

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_until(done: Callable[[], object], *, within_seconds: float = 30) -> None:
    """What other programs do can only be looked at."""
    begin = time.monotonic()
    while not done():
        waited = time.monotonic() - begin
        assert waited < within_seconds, "not in time"
        time.sleep(pause_seconds(waited))


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own for a state folder."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "faults", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a tmpfs: run as root")
    try:
        yield folder
    finally:
        run("umount", "--lazy", str(folder))


def write_slow_thing(folder: Path) -> Path:
    """A package to be built by pip."""
    folder.mkdir()
    (folder / "backend.py").write_text(SLOW_BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "slow-thing"\nversion = "1"\n'
    )
    return folder


def alive(*, words: Sequence[str]) -> list[int]:
    """Processes whose command line has all these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        line = _bytes(path).decode(errors="replace")
        if line and all(word in line for word in words):
            found.append(int(path.parent.name))
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
