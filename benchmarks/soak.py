"""What one agent takes over a long time and with many items: the whole agent in this process, with
its real journal on disk, between a queue service and a runner that live in memory.

    .venv/bin/python benchmarks/soak.py [--items 20000] [--live 10000] [--seconds 60]

soak     short items, one in ten fails: resident memory per item as a line fitted to the second
         half, open descriptors, series of /metrics. Exits 1 if memory grows by more than 100 bytes
         an item, or descriptors or series change.
live     so many items, adopted from the journal, that all run and none ends: memory, share of one
         core, how late the loop was, calls to the service a minute. Aims are printed beside the
         figures.

Each part is a process of its own, so that neither inherits the other's memory.
"""
# ruff: noqa: ARG002 - methods are those of ports

import argparse
import gc
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import structlog
from prometheus_client import generate_latest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "agent"))

from fakes import FakeBundles, FakeRunner, FakeService, World, an_item

from launch_async.adapters.journals.sqlite import SqliteJournal
from launch_async.adapters.queues.wandb import RUNS_PER_REQUEST
from launch_async.admin.metrics import registry_of
from launch_async.agent.agent import Agent
from launch_async.domain.ids import ItemId, QueueRef, RunRef
from launch_async.domain.item import Item
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunEnd, RunHandle, RunState, RunStatus
from launch_async.kit.clock import moment_now
from launch_async.kit.heap import settle_heap
from launch_async.ports.journal import Entry
from launch_async.ports.presence import AgentStatus
from launch_async.ports.queue import Popped
from launch_async.ports.runner import LaunchOrder
from launch_async.ports.runs import RunView

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLES = 20
SLOTS = 100
RUN_SECONDS = 0.005
MAX_BYTES_PER_ITEM = 100
PART_SECONDS = 3600


class Service(FakeService):
    """Hands out `count` items, knows a run of each, and remembers nothing but numbers."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.given = count, 0
        self.calls: Counter[str] = Counter()

    async def pop(self, queues: Sequence[QueueRef]) -> Sequence[Popped]:
        self.calls["pop"] += 1
        await anyio.lowlevel.checkpoint()
        return [self._next() for _ in queues]

    def _next(self) -> Item | None:
        if self.given >= self.count:
            return None
        self.given += 1
        return an_item(self.given)

    async def ack(self, item: Item) -> bool:
        self.calls["ack"] += 1
        await anyio.lowlevel.checkpoint()
        return True

    async def fail(self, *_: object, **__: object) -> None:
        self.calls["fail"] += 1

    async def upload(self, path: str, content: bytes) -> None:
        self.calls["upload"] += 1

    async def beat(self, status: AgentStatus) -> bool:
        self.calls["beat"] += 1
        return False

    async def look_up(self, runs: Sequence[RunRef]) -> Mapping[RunRef, RunView]:
        self.calls["look_up"] += -(-len(runs) // RUNS_PER_REQUEST)
        return dict.fromkeys(runs, RunView(state="running"))


class Runner(FakeRunner):
    """Runs end by themselves, or never; nothing is kept of those that have ended."""

    def __init__(self, *, endless: bool) -> None:
        super().__init__()
        self._endless = endless
        self.watched = 0

    async def launch(self, order: LaunchOrder) -> RunHandle:
        await anyio.lowlevel.checkpoint()
        return self._handle(order)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        self.watched += 1
        yield RunStatus(state=RunState.RUNNING)
        await (anyio.sleep_forever() if self._endless else anyio.sleep(RUN_SECONDS))
        code = 3 if handle.run_id.endswith("0") else 0
        yield RunStatus(state=RunState.ENDED, end=RunEnd(exit_code=code))

    async def find(self, identity: str) -> Sequence[Any]:
        return ()

    async def remove(self, handle: RunHandle) -> None:
        await anyio.lowlevel.checkpoint()


class NoBundles(FakeBundles):
    async def keep(self, item_id: ItemId, files: Mapping[str, bytes]) -> None:
        await anyio.lowlevel.checkpoint()


def world_of(journal: SqliteJournal, count: int, *, endless: bool) -> World:
    world = World()
    world.journal = journal  # type: ignore[assignment]
    world.service, world.runner = Service(count), Runner(endless=endless)
    world.bundles = NoBundles()
    world.section = {"heartbeat": 10.0, "poll": 5.0, "poll_max": 30.0, "waiting": 200}
    return world


async def soak(count: int, folder: Path) -> bool:
    async with SqliteJournal.open(folder) as journal:
        world = world_of(journal, count, endless=False)
        agent = world.agent(max_jobs=SLOTS)
        batch = count / SAMPLES
        began, samples = time.monotonic(), [sample(agent)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            while (ended := sum(agent.view().ended.values())) < count:
                await anyio.sleep(0.05)
                if ended >= batch * len(samples):
                    samples.append(sample(agent))
                    rss, files, series = samples[-1]
                    print(f"  {ended:6} items {rss / 2**20:7.1f} MiB {files} files {series} series",
                          flush=True)  # fmt: skip
            ends = dict(agent.view().ended)
            tasks.cancel_scope.cancel()
    took = time.monotonic() - began
    later = samples[len(samples) // 2 :]
    slope = statistics.linear_regression(
        [batch * place for place in range(len(later))], [rss for rss, _, _ in later]
    ).slope
    files, series = ({one[place] for one in later} for place in (1, 2))
    print(f"soak: {count} items in {took:.0f} s ({count / took:.0f}/s), ends {ends}; "
          f"RSS {later[0][0] / 2**20:.1f} -> {later[-1][0] / 2**20:.1f} MiB in the second half, "
          f"slope {slope:+.1f} bytes an item; descriptors {sorted(files)}, "
          f"series {sorted(series)}")  # fmt: skip
    return abs(slope) <= MAX_BYTES_PER_ITEM and len(files) == len(series) == 1


def sample(agent: Agent) -> tuple[int, int, int]:
    """Resident bytes, open descriptors, series of the metrics."""
    gc.collect()
    lines = generate_latest(registry_of(agent, agent.lag, tuple)).decode().splitlines()
    series = sum(not line.startswith("#") for line in lines)
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE, files, series


async def live(count: int, seconds: float, folder: Path) -> bool:
    async with SqliteJournal.open(folder) as journal:
        world = world_of(journal, 0, endless=True)
        await fill(journal, count)
        agent = world.agent(max_jobs=-1)
        rss_before = sample(agent)[0]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            began, blocked = time.monotonic(), 0.0
            while world.runner.watched < count:
                slept = time.monotonic()
                await anyio.sleep(0.05)
                blocked = max(blocked, time.monotonic() - slept - 0.05)
            taken = time.monotonic() - began
            await anyio.sleep(5)
            calls, cpu, began = world.service.calls.copy(), cpu_seconds(), time.monotonic()
            lags = await lateness(seconds)
            took = time.monotonic() - began
            share = (cpu_seconds() - cpu) / took
            asked = {name: n * 60 / took for name, n in (world.service.calls - calls).items()}
            rss = sample(agent)[0]
            tasks.cancel_scope.cancel()
    p50, p99 = (lags[int(len(lags) * part)] * 1000 for part in (0.5, 0.99))
    shown = ", ".join(f"{name} {number:.0f}" for name, number in sorted(asked.items()))
    print(f"live: {count} items, all adopted and watched after {taken:.1f} s, "
          f"the loop late by {blocked:.2f} s at most meanwhile; over {took:.0f} s: "
          f"RSS {rss / 2**20:.0f} MiB (aim < 300; {(rss - rss_before) / count:.0f} bytes an item), "
          f"CPU {100 * share:.1f} % of a core (aim < 5), loop late p50 {p50:.1f} ms "
          f"p99 {p99:.1f} ms (aim < 20) worst {lags[-1] * 1000:.0f} ms, "
          f"calls a minute {sum(asked.values()):.0f} ({shown})")  # fmt: skip
    return rss < 300 * 2**20 and share < 0.05 and p99 < 20


async def fill(journal: SqliteJournal, count: int) -> None:
    """Running items of an earlier life, in one transaction: each alone takes a sync of the disk."""
    connection = journal._connection  # noqa: SLF001
    await connection.execute_fetchall("BEGIN")
    for number in range(count):
        item = an_item(number)
        handle = RunHandle(backend=Runner.name, run_id=item.run_id, item_id=item.id, data={})
        entry = Entry(item=item, phase=Phase.RUNNING, handle=handle, launched=moment_now())
        await journal.write(entry)
    await connection.execute_fetchall("COMMIT")


async def lateness(seconds: float) -> list[float]:
    """How late each of many short sleeps was, sorted."""
    late: list[float] = []
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        await anyio.sleep(0.01)
        late.append(max(0.0, time.monotonic() - now - 0.01))
    return sorted(late)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--live", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--part", choices=["soak", "live"])
    said = parser.parse_args()
    if said.part is None:
        command = [sys.executable, __file__, *sys.argv[1:], "--part"]
        parts = [part for part, n in (("soak", said.items), ("live", said.live)) if n]
        done = [
            subprocess.run([*command, part], timeout=PART_SECONDS, check=False).returncode
            for part in parts
        ]
        sys.exit(max(done))
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(40), cache_logger_on_first_use=True
    )
    settle_heap()  # as the agent's process does
    with tempfile.TemporaryDirectory(prefix="launch-async-soak-") as folder:
        work = (
            (soak, said.items, Path(folder))
            if said.part == "soak"
            else (live, said.live, said.seconds, Path(folder))
        )
        sound = anyio.run(*work, backend_options={"use_uvloop": True})
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
