"""How long an agent takes to adopt what ran when it was killed, with its journal and without.

    .venv/bin/python benchmarks/adoption.py [--each 60]

Real parts: our server, our agent as a process, the Docker engine, processes. `--each` containers
and as many processes sleep; the agent gets SIGKILL and starts again; then once more with its
journal deleted. Timed from the start of the process to the moment at which its status shows every
item as running; counted are the engine's calls, as a proxy before its socket sees them. Ends with
`lost=0 doubled=0 of N` or exits with 1.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))

from agent_harness import Fleet, RunningAgent
from programs import ControlPlane, Shell, program_environment

IMAGE = "launch-async-test/tiny:latest"
CONFIG = """
queues: [processes, containers]
max_jobs: -1
agent: {{state_dir: {state_dir}, admin: "127.0.0.1:0", poll: 0.2, heartbeat: 2, waiting: 64}}
"""
JOB = "import time\nprint('up', flush=True)\ntime.sleep(3600)\n"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, default=60)
    parser.add_argument("--within", type=float, default=900.0, help="seconds for the launches")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        return measure(Path(folder), arguments.each, arguments.within, stack)


def measure(folder: Path, each: int, within_seconds: float, stack: ExitStack) -> int:
    server = stack.enter_context(ControlPlane.start(folder / "server"))
    env = program_environment(folder / "home", url=server.url, key=server.key)
    calls = stack.enter_context(counted_engine(folder / "docker.sock"))
    env["DOCKER_HOST"] = f"unix://{folder / 'docker.sock'}"
    fleet = Fleet(server, Shell(folder / "work", env=env, programs=stack))
    fleet.make_queue("processes", "local-process")
    fleet.make_queue("containers", "local-container")
    job = fleet.make_code_job("sleeper", JOB)
    config = CONFIG.format(state_dir=folder / "state")
    for _ in range(each):
        fleet.push("processes", job=job)
        fleet.push(
            "containers",
            docker={"docker_image": IMAGE},
            overrides={"entry_point": ["sleep"], "args": ["3600"]},
        )
    stack.callback(clean_up, folder)
    began = time.monotonic()
    with fleet.agent(config) as agent:
        wait_for_running(agent, 2 * each, within_seconds)
        print(f"{'launched':26} {time.monotonic() - began:7.1f} s")
        agent.program.kill()
    witnesses = alive(folder)
    good = True
    for name in ("adopted by the journal", "adopted without a journal"):
        if name.endswith("without a journal"):
            for path in (folder / "state").glob("journal.sqlite*"):
                path.unlink()
        calls.clear()
        began = time.monotonic()
        with fleet.agent(config) as agent:
            wait_for_running(agent, 2 * each, 120.0)
            seconds = time.monotonic() - began
            good &= agent.status()["adopted"] == 2 * each and alive(folder) == witnesses
            agent.program.kill()
        counts = ", ".join(f"{count} {call}" for call, count in calls.most_common(5))
        print(f"{name:26} {seconds:7.1f} s   engine's calls: {counts}")
    lost = 2 * each - len(witnesses & alive(folder))
    print(f"lost={lost} doubled={len(witnesses) - 2 * each} of {2 * each}")
    return 0 if good and lost == 0 and len(witnesses) == 2 * each else 1


def wait_for_running(agent: RunningAgent, count: int, within_seconds: float) -> None:
    end = time.monotonic() + within_seconds
    while True:
        phases: Counter[str] = Counter()
        for of_queue in agent.status()["phases"].values():
            phases.update(of_queue)
        if phases["running"] == count:
            return
        if time.monotonic() > end:
            raise SystemExit(f"not {count} running within {within_seconds:.0f} s: {dict(phases)}")
        time.sleep(0.1)


def alive(folder: Path) -> set[str]:
    """Running containers by the engine's word and jobs by the shims' records."""
    identity = (folder / "state" / "identity").read_text().strip()
    label = f"label=launch-async.identity={identity}"
    words = ["docker", "ps", "-q", "--filter", label]
    found = set(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
    for path in (folder / "state" / "runs").glob("*/started.json"):
        pid = json.loads(path.read_text())["job_pid"]
        if Path(f"/proc/{pid}").exists():
            found.add(str(pid))
    return found


def clean_up(folder: Path) -> None:
    ours = alive(folder)
    for pid in (one for one in ours if one.isdigit() and Path(f"/proc/{one}").exists()):
        subprocess.run(["kill", "-9", "--", f"-{pid}"], check=False)
    identity = (folder / "state" / "identity").read_text().strip()
    words = ["docker", "ps", "-aq", "--filter", f"label=launch-async.identity={identity}"]
    ids = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    for start in range(0, len(ids), 50):
        part = ids[start : start + 50]
        subprocess.run(["docker", "rm", "-f", *part], check=False, capture_output=True)


@contextmanager
def counted_engine(path: Path) -> Iterator[Counter[str]]:
    """A proxy before the engine's socket that counts requests by kind."""
    counts: Counter[str] = Counter()
    program = Path(__file__).with_name("count_calls.py")
    command = [sys.executable, str(program), str(path), "/var/run/docker.sock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        proxy.stdout.readline()

        def read() -> None:
            assert proxy.stdout is not None
            for line in proxy.stdout:
                counts[re.sub(r"/v[\d.]+", "", line.strip())] += 1

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield counts
        finally:
            proxy.terminate()
            reader.join()


if __name__ == "__main__":
    sys.exit(main())
