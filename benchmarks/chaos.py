"""Drains a queue of processes and containers while the agent and the server are killed.

    .venv/bin/python benchmarks/chaos.py [--seed 7] [--items 300] [--kills 50] [--server-kills 10]

Every kill is a SIGKILL, at a moment that the seed decides: after so many jobs have begun, or in the
first second of a life, and then often as an item enters a certain phase. What happened is counted
by witnesses that are not ours (chaos_jobs.py): an item is lost when its job never began or its
queue never learned an end, doubled when its job began twice, wrong when the queue's word is not
what the backend saw. The last line says so; anything but nought of each exits 1.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))

from agent_harness import ENDED, Fleet
from chaos_jobs import ITEM_LABEL, PROCESS, Job, Witnesses, jobs, promised
from chaos_lives import CONFIG_FILE, PROGRESS_SECONDS, Kill, Lives, items_of, plan
from programs import ControlPlane, Shell, program_environment

DRAIN_SECONDS = 240.0
CONFIG = """
queues: [processes, containers]
max_jobs: 16
agent:
  state_dir: {state_dir}
  admin: 127.0.0.1:0
  poll: 0.5
  poll_max: 1
  heartbeat: 2
"""


class Chaos:
    """One server, one state folder, and the agent's lives in it."""

    def __init__(self, fleet: Fleet, witnesses: Witnesses, state_dir: Path) -> None:
        self._fleet = fleet
        self._witnesses = witnesses
        self._log = state_dir.with_name("agent.log")
        self.pushed: dict[str, Job] = {}
        self.lives = Lives(fleet.shell, self._keep)
        fleet.shell.write(CONFIG_FILE, CONFIG.format(state_dir=state_dir))

    def push(self, todo: list[Job], job: str) -> None:
        for one in todo:
            spec = one.spec(job=job, image=self._witnesses.image, witness=self._witnesses.file)
            self.pushed[self._fleet.push(one.queue, **spec)] = one

    def suffer(self, kills: list[Kill]) -> None:
        """Live and die as planned; a last life goes on."""
        self.lives.begin()
        self.lives.suffer(kills, wait_for=self._wait_for, strike=self._strike)

    def items(self) -> dict[str, dict[str, Any]]:
        """All items as the queues know them."""
        return {**items_of(self._fleet, "processes"), **items_of(self._fleet, "containers")}

    def drain(self) -> None:
        """Until every item has ended and the agent is done with all; or until time is up."""
        running = self.lives.running()
        end = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < end:
            states = [item["state"] for item in self.items().values()]
            if ENDED.issuperset(states) and not running.status()["items"]:
                return
            time.sleep(1)
        print("not drained in time:", running.get("/status")[1], file=sys.stderr)

    def leftovers(self) -> list[str]:
        """Containers of ours that are still there."""
        command = ["docker", "ps", "-a", "--filter", f"ancestor={self._witnesses.image}"]
        listed = subprocess.run(
            [*command, "--filter", f"label={ITEM_LABEL}", "--format", "{{.Image}} {{.ID}}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout
        lines = [line.partition(" ") for line in listed.splitlines()]
        return [container for image, _, container in lines if image == self._witnesses.image]

    def _wait_for(self, begun: int) -> None:
        end = time.monotonic() + PROGRESS_SECONDS
        while begun and len(self._witnesses.begun(self.pushed)) < begun:
            if time.monotonic() > end:
                return
            time.sleep(0.05)

    def _strike(self, kill: Kill) -> None:
        if kill.whom == "agent":
            self.lives.end(kill=True)
            self.lives.begin()
            return
        control_plane = self._fleet.control_plane
        control_plane.program.kill()
        time.sleep(kill.down)
        control_plane.restart()

    def _keep(self, output: str) -> None:
        with self._log.open("a") as log:
            log.write(f"--- life {self.lives.begun}\n{output}")


def faults_of(
    pushed: Mapping[str, Job],
    *,
    items: Mapping[str, Mapping[str, Any]],
    begun: Mapping[int, int],
    ends: Mapping[int, Sequence[int]],
) -> dict[str, list[int]]:
    """The numbers of the items that did not go as they should, by what the witnesses saw."""
    faults: dict[str, list[int]] = {"lost": [], "doubled": [], "wrong": []}
    for item_id, job in sorted(pushed.items(), key=lambda pair: pair[1].number):
        item, times, truths = items.get(item_id), begun.get(job.number, 0), ends[job.number]
        if times > 1 or len(truths) > 1:
            faults["doubled"].append(job.number)
            print(f"doubled: {job} began {times} times and ended {truths}")
        if item is None or item["state"] not in ENDED or not times or not truths:
            faults["lost"].append(job.number)
            print(f"lost: {job} began {times} times and ended {truths}; the queue has {item}"[:600])
            continue
        state, words = promised(job, truths[0])
        told = item["state"] == state and words in (item["message"] or "")
        if truths[0] != job.code or not told:
            faults["wrong"].append(job.number)
            print(f"wrong: {job} ended {truths}, so {state} {words!r}; the queue has {item}"[:600])
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--server-kills", type=int, help="default: one for five of the agent's")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    said = parser.parse_args()
    if said.server_kills is None:
        said.server_kills = said.kills // 5
    todo = jobs(said.seed, said.items)
    moments = plan(said.seed, items=said.items, kills=said.kills, server_kills=said.server_kills)
    words = f"--items {said.items} --kills {said.kills} --server-kills {said.server_kills}"
    print(f"chaos: replay with --seed {said.seed} {words}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="launch-async-chaos-"))
    began = time.monotonic()
    sound = run(folder, todo, moments, began)
    if sound and not said.keep:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    else:
        print("logs:", folder, file=sys.stderr)
    sys.exit(0 if sound else 1)


def run(folder: Path, todo: list[Job], moments: list[Kill], began: float) -> bool:
    with (
        ControlPlane.start(folder / "server") as control_plane,
        Witnesses(folder / "witness") as witnesses,
        ExitStack() as programs,
    ):
        env = program_environment(folder / "home", url=control_plane.url, key=control_plane.key)
        fleet = Fleet(control_plane, Shell(folder / "work", env=env, programs=programs))
        fleet.make_queue("processes", "local-process")
        fleet.make_queue("containers", "local-container")
        job = fleet.make_code_job("chaos", PROCESS)
        chaos = Chaos(fleet, witnesses, folder / "state")
        chaos.push(todo, job)
        print(f"{len(todo)} items pushed after {time.monotonic() - began:.0f} s", flush=True)
        try:
            chaos.suffer(moments)
            print(f"last kill after {time.monotonic() - began:.0f} s", flush=True)
            chaos.drain()
            code = chaos.lives.end(kill=False)
        finally:
            chaos.lives.drop()
        faults = faults_of(
            chaos.pushed,
            items=chaos.items(),
            begun=witnesses.begun(chaos.pushed),
            ends=witnesses.ends(chaos.pushed),
        )
        leftovers = chaos.leftovers()
        for container in leftovers:
            subprocess.run(["docker", "rm", "-f", container], check=False, timeout=60)
    counts = {name: len(numbers) for name, numbers in faults.items()}
    kills = {who: sum(kill.whom == who for kill in moments) for who in ("agent", "server")}
    print(
        f"agent killed {kills['agent']} times, server {kills['server']}; jobs of each ending:",
        {code: sum(job.code == code for job in todo) for code in sorted({j.code for j in todo})},
        f"wrong={counts['wrong']} leftovers={len(leftovers)} exit={code}",
        f"in {time.monotonic() - began:.0f} s",
    )
    print(f"lost={counts['lost']} doubled={counts['doubled']} of {len(todo)}", flush=True)
    return not any(counts.values()) and not leftovers and code == 0


if __name__ == "__main__":
    main()
