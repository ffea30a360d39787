"""How long an agent takes to start and how much memory it holds: ours beside W&B's own, in one run.

    .venv/bin/python benchmarks/agent_start.py [--rounds 5]

Both are started in turn against the same control plane, with one empty queue. The time is from the
start of the process to its registration, as the control plane sees it. Memory is the
resident set of the process and its children two seconds later (W&B's client works in a child).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))

from agent_harness import Fleet
from programs import BIN, ControlPlane, Program, Shell, program_environment

LOOKED = """query Agents($entity: String!) {
  project(name: "model-registry", entityName: $entity) {
    launchAgents { id agentStatus heartbeatAt }
  }
}"""
SETTLE_SECONDS = 2.0
DEADLINE_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    figures: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, ControlPlane.start(Path(folder) / "s") as server:
        env = program_environment(Path(folder) / "home", url=server.url, key=server.key)
        shell = Shell(Path(folder) / "work", env=env, programs=None)  # type: ignore[arg-type]
        Fleet(server, shell).make_queue("q", "local-process")
        shell.write("c.yaml", "queues: [q]\nagent: {state_dir: state, admin: '127.0.0.1:0'}\n")
        commands = {
            "launch-async agent": [str(BIN / "launch-async"), "agent", "-c", "c.yaml"],
            "wandb launch-agent": [str(BIN / "wandb"), "launch-agent", "-q", "q", "-e", "local"],
        }
        for _ in range(rounds):
            for name, command in commands.items():
                figures.setdefault(name, []).append(measure(server, shell, command))
    print(f"{'':20} {'start s':>24} {'RSS MiB':>10}")
    for name, pairs in figures.items():
        times, sizes = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        spread = f"{min(times):.2f} / {statistics.median(times):.2f} / {max(times):.2f}"
        print(f"{name:20} {spread:>24} {statistics.median(sizes):10.0f}")
    print("start: minimum / median / maximum over", rounds, "rounds")


def measure(server: ControlPlane, shell: Shell, command: list[str]) -> tuple[float, float]:
    before = {agent["id"] for agent in agents(server)}
    began = time.monotonic()
    with Program.start(command, env=shell.env, cwd=shell.folder) as program:
        while not any(
            agent["id"] not in before and agent["heartbeatAt"] for agent in agents(server)
        ):
            assert time.monotonic() - began < DEADLINE_SECONDS, program.output
            time.sleep(0.01)
        took = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        return took, resident_mib(program.process.pid)


def agents(server: ControlPlane) -> list[dict[str, str]]:
    found: list[dict[str, str]] = server.ask(LOOKED, entity=server.entity)["project"][
        "launchAgents"
    ]
    return found


def resident_mib(pid: int) -> float:
    """Of a process and all its descendants."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
    ).stdout
    rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
    family, size = {pid}, 0
    for own, parent, rss in sorted(rows):
        if own in family or parent in family:
            family.add(own)
            size += rss
    return size / 1024


if __name__ == "__main__":
    main()
