"""How fast an agent takes items through their whole journey when nothing outside costs time.

    .venv/bin/python benchmarks/agent_items.py [--items 10000] [--queues 1] [--journal sqlite]

Queue service, builder and runner are in memory, a run ends as soon as it was launched; admission,
polling, journeys, watches and reports are real. The journal is in memory or the real SQLite file.
A second part polls 500 idle queues and counts requests. The last line is for comparison over time:
microseconds of CPU per item at a tenth of the items and at all (equal: nothing is quadratic), and
the time for all.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import structlog

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "agent"))

from fakes import FakeRunner, FakeService, World, an_item, config_of

from launch_async.adapters.journals.sqlite import SqliteJournal
from launch_async.config.model import LaunchConfig
from launch_async.domain.ids import QueueRef
from launch_async.domain.item import Item
from launch_async.domain.run import RunEnd, RunHandle, RunState, RunStatus
from launch_async.kit.heap import settle_heap
from launch_async.ports.queue import Popped
from launch_async.ports.runner import LaunchOrder
from launch_async.ports.runs import RunView

IDLE_QUEUES = 500
IDLE_ROUNDS = 5
IDLE_SECONDS = 1.0
WAITING = 64
HEARTBEAT_SECONDS = 1.0


class QuickService(FakeService):
    """Keeps no record that it would have to search."""

    async def ack(self, item: Item) -> bool:
        del item
        await anyio.lowlevel.checkpoint()
        return True


class QuickRunner(FakeRunner):
    """Every run is over at once, well."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def launch(self, order: LaunchOrder) -> RunHandle:
        self._world.service.runs[order.run] = RunView(state="finished")
        self.launches[order.run.run_id] += 1
        return self._handle(order)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        del handle
        yield RunStatus(state=RunState.RUNNING)
        await anyio.lowlevel.checkpoint()
        yield RunStatus(state=RunState.ENDED, end=RunEnd(exit_code=0))


async def drain(items: int, queues: int, journal: str, folder: Path) -> tuple[float, float, int]:
    """Seconds, seconds of CPU and pop requests for so many items."""
    world = World()
    world.service, world.runner = QuickService(), QuickRunner(world)
    names = [f"q{number}" for number in range(queues)]
    for number in range(items):
        name = names[number % queues]
        world.service.pending.setdefault(name, deque()).append(an_item(number, name))
    async with AsyncExitStack() as stack:
        if journal == "sqlite":
            world.journal = await stack.enter_async_context(SqliteJournal.open(folder))  # type: ignore[assignment]
        agent = world.agent(
            config=config_of(dict.fromkeys(names, -1), waiting=WAITING, heartbeat=HEARTBEAT_SECONDS)
        )
        began, cpu = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            table = agent._tools.table  # noqa: SLF001
            while table.ended.total() < items:
                await table.changed.wait()
            took, used = time.perf_counter() - began, time.process_time() - cpu
            agent.stop("done")
        assert table.ended == Counter(succeeded=items), table.ended
        assert max(world.runner.launches.values()) == 1
        assert table.audit() == 0
    return took, used, len(world.service.pops)


async def idle(config: LaunchConfig) -> tuple[float, float, float]:
    """Requests per second, the oldest look's age over the interval, and CPU share."""
    world = World()
    plain, looks = world.service.pop, 0

    async def pop(queues: Sequence[QueueRef]) -> Sequence[Popped]:
        nonlocal looks
        await anyio.sleep(0.005)
        looks += len(queues)
        return await plain(queues)

    world.service.pop = pop  # type: ignore[method-assign]
    agent = world.agent(config=config)
    began, cpu = time.perf_counter(), time.process_time()
    oldest = 0.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.run)
        while looks < IDLE_QUEUES * IDLE_ROUNDS:
            await anyio.sleep(IDLE_SECONDS / 10)
            ages = [queue.seconds_since_poll for queue in agent.view(items=False).queues]
            known = [age for age in ages if age is not None]
            oldest = max(oldest, *known) if len(known) == IDLE_QUEUES else oldest
        took, used = time.perf_counter() - began, time.process_time() - cpu
        agent.stop("done")
    return len(world.service.pops) / took, oldest / IDLE_SECONDS, used / took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--queues", type=int, default=1)
    parser.add_argument("--journal", choices=("memory", "sqlite"), default="memory")
    options = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=True,
    )
    settle_heap()  # as the agent's process does
    per_item: list[float] = []
    for items in (options.items // 10, options.items):
        with tempfile.TemporaryDirectory() as folder:
            arguments = (items, options.queues, options.journal, Path(folder))
            took, used, pops = anyio.run(drain, *arguments, backend_options={"use_uvloop": True})
        per_item.append(used / items * 1e6)
        print(
            f"{items} items, {options.queues} queues, journal {options.journal}: {took:.2f} s, "
            f"{items / took:.0f} items/s, {used / items * 1e6:.0f} us of CPU each, "
            f"{pops} pop requests"
        )
    names = [f"n{number}" for number in range(IDLE_QUEUES)]
    for waiting in (1000, 8):
        section = {"poll": IDLE_SECONDS, "poll_max": IDLE_SECONDS, "waiting": waiting}
        config = config_of(dict.fromkeys(names, -1), **section)
        rate, oldest, share = anyio.run(idle, config, backend_options={"use_uvloop": True})
        print(
            f"{IDLE_QUEUES} idle queues, interval {IDLE_SECONDS:g} s, agent.waiting {waiting}: "
            f"{rate:.1f} requests/s of 5 ms, oldest look {oldest:.2f} intervals ago, "
            f"{share:.0%} of a core"
        )
    print(f"cpu us/item {per_item[0]:.0f} -> {per_item[1]:.0f}, {took:.2f} s for {items} items")


if __name__ == "__main__":
    main()
