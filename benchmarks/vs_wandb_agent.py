"""Our agent beside W&B's own on the same server and Docker engine, in one run.

    .venv/bin/python benchmarks/vs_wandb_agent.py [--pushes 5] [--many 60] [--few 40]

idle     both agents idle on a queue each; an item is pushed to both at the same moment, after a
         pause of chance. The time is from the push to the container's start by the engine's clock.
many     60 tiny items wait, slots are unlimited: container starts per second, first to last.
few      40 tiny items wait, `max_jobs: 4`: items drained per second. Once with jobs that tell the
         API of a run in two requests of busybox, once with silent ones that exit 0 without a run
         (both agents fail these as such; W&B's looks for the run for a minute first). W&B's agent
         gets two minutes for the silent ones; its rate is that of the containers it started.
calls    GraphQL requests by the agent during `many`, from its start until all items have ended
         on the server, counted by a proxy between them, per item.
CPU, RSS of the agent and all that it started (W&B's has wandb-core and a `docker run` per item),
         during `many`.

Both agents run with their defaults but for `max_jobs`. Everything has a time limit.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))

from agent_harness import ENDED, Fleet
from chaos_jobs import CONTAINER, TINY
from counting_proxy import CountingProxy
from engine_events import EngineEvents
from programs import BIN, ControlPlane, Program, Shell, program_environment

OURS, THEIRS = "launch-async", "wandb"
IMAGES = {OURS: "launch-async-bench/ours:latest", THEIRS: "launch-async-bench/wandb:latest"}
REGISTERED = {OURS: "agent registered", THEIRS: "polling on queues"}
START_SECONDS = 60.0
DRAIN_SECONDS = 150.0
SILENT_SECONDS = 120.0
PAUSES = (12.0, 24.0)
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
COUNT = """query Count($entity: String!, $queue: String!) {
  project(name: "model-registry", entityName: $entity) { runQueue(name: $queue) {
    runQueueItems(first: 100) { edges { node { state } } }
  } }
}"""


class Load(msgspec.Struct):
    """What an agent and its descendants took."""

    cpu_seconds: float = 0.0
    rss_mib: float = 0.0


class Drain(msgspec.Struct, frozen=True):
    """How a queue went."""

    per_second: float
    started: int
    ended: int
    asked: Counter[str]
    load: Load


class Field:
    """The server with one proxy per agent, and the engine's events."""

    def __init__(
        self, server: ControlPlane, events: EngineEvents, folder: Path, stack: ExitStack
    ) -> None:
        self.server = server
        self.events = events
        self.proxies: dict[str, CountingProxy] = {}
        self._shells: dict[str, Shell] = {}
        for name in (OURS, THEIRS):
            proxy = stack.enter_context(CountingProxy(server.url))
            self.proxies[name] = proxy
            env = program_environment(folder / name, url=proxy.url, key=server.key)
            self._shells[name] = Shell(folder / name / "work", env=env, programs=stack)
        self.fleet = Fleet(server, self._shells[OURS])

    @contextmanager
    def agent(self, name: str, queue: str, max_jobs: int) -> Iterator[Program]:
        """One agent on one queue, for the length of the block."""
        shell = self._shells[name]
        if name == OURS:
            agent = f"{{state_dir: state-{queue}, admin: ''}}"
            shell.write("c.yaml", f"queues: [{queue}]\nmax_jobs: {max_jobs}\nagent: {agent}\n")
            command = [str(BIN / "launch-async"), "agent", "-c", "c.yaml"]
        else:
            words = ["-q", queue, "-e", self.server.entity, "-j", str(max_jobs)]
            command = [str(BIN / "wandb"), "launch-agent", *words]
        program = Program(command, env=shell.env, cwd=shell.folder)
        try:
            program.wait_for(REGISTERED[name], within_seconds=START_SECONDS)
            yield program
        finally:
            program.kill()

    def make_queue(self, queue: str) -> None:
        self.fleet.make_queue(queue, "local-container")

    def push(self, name: str, queue: str, *, told: bool = False) -> None:
        args = ["sh", "-c", CONTAINER, "job", "0", "yes", "0", "0"] if told else ["true"]
        image = {"docker_image": IMAGES[name]}
        self.fleet.push(queue, docker=image, overrides={"args": args})

    def moments(self, name: str, action: str, since: float) -> list[float]:
        """When containers of this agent's image did so."""
        return [
            event.seconds
            for event in self.events.seen
            if (event.action, event.facts["image"]) == (action, IMAGES[name])
            and event.seconds >= since
        ]

    def ended(self, queue: str) -> int:
        answer = self.server.ask(COUNT, entity=self.server.entity, queue=queue)
        edges = answer["project"]["runQueue"]["runQueueItems"]["edges"]
        return sum(edge["node"]["state"] in ENDED for edge in edges)

    def drain(
        self, name: str, queue: str, *, count: int, max_jobs: int, told: bool, within: float
    ) -> Drain:
        """Push so many, start the agent, and see how it goes until all have ended."""
        self.make_queue(queue)
        for _ in range(count):
            self.push(name, queue, told=told)
        asked, began, load = self.proxies[name].asked(), time.time(), Load()
        deadline = began + within
        with self.agent(name, queue, max_jobs) as agent, measured(agent.process.pid, load):
            while self.ended(queue) < count and time.time() < deadline:
                time.sleep(0.5)
            ended = self.ended(queue)
        starts = self.moments(name, "start", began)
        done = sorted(self.moments(name, "die", began))
        span = max(done[-1] - min(starts), 0.001)
        if ended < count:
            span = deadline - min(starts)
        return Drain(
            per_second=len(starts) / span,
            started=len(starts),
            ended=ended,
            asked=self.proxies[name].asked() - asked,
            load=load,
        )

    def idle(self, pushes: int) -> dict[str, list[float]]:
        """Seconds from push to start, both agents at once."""
        found: dict[str, list[float]] = {OURS: [], THEIRS: []}
        for name in found:
            self.make_queue(f"idle-{name}")
        with self.agent(OURS, f"idle-{OURS}", -1), self.agent(THEIRS, f"idle-{THEIRS}", -1):
            for _ in range(pushes):
                time.sleep(random.uniform(*PAUSES))
                pushed: dict[str, float] = {}
                for name in random.sample(list(found), k=2):
                    pushed[name] = time.time()
                    self.push(name, f"idle-{name}")
                for name, moment in pushed.items():
                    found[name].append(self._started(name, moment) - moment)
        return found

    def _started(self, name: str, since: float) -> float:
        while not (starts := self.moments(name, "start", since)):
            assert time.time() < since + START_SECONDS, f"{name} did not start the item"
            time.sleep(0.05)
        return starts[0]


@contextmanager
def measured(pid: int, load: Load) -> Iterator[None]:
    """Watch a process and its descendants: `load` has the peak of RSS and, after, the CPU."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.25):
            cpu, rss = usage(pid)
            load.cpu_seconds, load.rss_mib = max(load.cpu_seconds, cpu), max(load.rss_mib, rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds, those of ended children with them, and RSS in MiB, of a whole family."""
    rows: dict[int, tuple[int, float, float]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        cpu = sum(int(field) for field in fields[11:15]) / CLOCK_TICKS
        rss = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        rows[int(folder.name)] = (int(fields[1]), cpu, rss)
    family, grown = {pid}, True
    while grown:
        more = {one for one, (parent, _, _) in rows.items() if parent in family} - family
        grown = bool(more)
        family |= more
    members = [rows[one] for one in family if one in rows]
    return sum(row[1] for row in members), sum(row[2] for row in members)


def engine_limit(count: int) -> float:
    """Tiny containers per second that the engine starts by itself, eight asked for at once."""
    command = ["docker", "run", "--rm", "--network", "host", TINY, "true"]

    def start(_: int) -> None:
        subprocess.run(command, timeout=60, check=True)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(start, range(count)))
    return count / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pushes", type=int, default=5)
    parser.add_argument("--many", type=int, default=60)
    parser.add_argument("--few", type=int, default=40)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for tag in IMAGES.values():
            subprocess.run(["docker", "tag", TINY, tag], check=True, timeout=30)
            stack.callback(subprocess.run, ["docker", "rmi", tag], capture_output=True, timeout=30)
        server = stack.enter_context(ControlPlane.start(Path(folder) / "server"))
        events = stack.enter_context(EngineEvents())
        field = Field(server, events, Path(folder), stack)
        report(field, said.pushes, said.many, said.few)


def report(field: Field, pushes: int, many: int, few: int) -> None:
    print(f"{'':34} {OURS:>12} {THEIRS:>12}", flush=True)
    ratios: dict[str, float] = {}

    def show(title: str, ours: float, theirs: float, *, more_is_better: bool = False) -> None:
        pair = (ours, theirs) if more_is_better else (theirs, ours)
        ratios[title] = pair[0] / max(pair[1], 1e-9)
        print(f"{title:34} {ours:12.2f} {theirs:12.2f}", flush=True)

    if pushes:
        idle = field.idle(pushes)
        for word, of in (("median", statistics.median), ("worst", max)):
            show(f"idle push to start {word}, s", of(idle[OURS]), of(idle[THEIRS]))
    print(f"{'engine alone, starts per s':34} {engine_limit(many):12.2f}", flush=True)
    drains = {
        name: field.drain(
            name, f"many-{name}", count=many, max_jobs=-1, told=False, within=DRAIN_SECONDS
        )
        for name in (OURS, THEIRS)
    }
    ours, theirs = drains[OURS], drains[THEIRS]
    show(f"{many} items, starts per s", ours.per_second, theirs.per_second, more_is_better=True)
    calls = [drain.asked.total() / many for drain in (ours, theirs)]
    show("calls per item", calls[0], calls[1])
    cpu = [1000 * drain.load.cpu_seconds / many for drain in (ours, theirs)]
    show("CPU, ms per item with the start", cpu[0], cpu[1])
    show("RSS, MiB at its peak", ours.load.rss_mib, theirs.load.rss_mib)
    for name, drain in drains.items():
        print(
            f"  {name}: {drain.ended} of {drain.started} ended; {dict(drain.asked.most_common(8))}"
        )
    for told, limit in ((True, DRAIN_SECONDS), (False, SILENT_SECONDS)):
        kind = "with a run" if told else "silent"
        few_of = {
            name: field.drain(
                name,
                f"few-{kind}-{name}".replace(" ", "-"),
                count=few,
                max_jobs=4,
                told=told,
                within=limit,
            )
            for name in (OURS, THEIRS)
        }
        rates = [few_of[name].per_second for name in (OURS, THEIRS)]
        show(f"{few} items {kind} in 4 slots, per s", rates[0], rates[1], more_is_better=True)
        for name, drain in few_of.items():
            print(f"  {name}: {drain.ended} ended, {drain.started} started")
    shown = ", ".join(f"{title.split(',')[0]} {ratio:.1f}x" for title, ratio in ratios.items())
    print(f"ours better by: {shown}")


if __name__ == "__main__":
    main()
