"""SIGKILL before and after every call that the agent makes outside of itself, one after the other.

Each number is one life that ends at that call; the next life must bring the item to its end with
one launch, one verdict and nothing left behind.
"""

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import msgspec
import pytest
from fakes import World, an_item, config_of, running, until

from launch_async.agent.agent import Agent
from launch_async.agent.tools import Target
from launch_async.domain.errors import Reason
from launch_async.domain.ids import ItemId
from launch_async.domain.run import RunEnd, RunHandle, RunStatus
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio

ITEM = an_item()
PREEMPTED = -1
"""Stands for the exit code of a run that was preempted."""
QUIET = frozenset({"beat", "look_up", "register", "pop", "entries", "serve", "find"})
"""Calls that change nothing by themselves; `pop` is covered by the first call after it."""


class Mortal:
    """Stands before a port; at its countdown's end the agent is dead and no call goes on."""

    def __init__(self, inner: Any, life: "Life") -> None:
        self._inner = inner
        self._life = life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name in QUIET or name == "watch":
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            await self._life.step(f"before {name}")
            answer = await found(*arguments, **named)
            await self._life.step(f"after {name}")
            return answer

        return call

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        await self._life.step("before watch")
        async for status in self._inner.watch(handle):
            await self._life.step("after a look")
            yield status


class Life:
    """Counts calls down to the death of one agent."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.dead = anyio.Event()
        self.last = ""

    async def step(self, name: str) -> None:
        if self.left == 0:
            if not self.dead.is_set():
                self.last = name
            self.dead.set()
            await anyio.sleep_forever()
        self.left -= 1


def mortal_agent(world: World, life: Life) -> Agent:
    agent = world.agent()
    tools = agent._tools
    tools.table._journal = Mortal(world.journal, life)
    target = Target(runner=Mortal(world.runner, life), builder=Mortal(world.builder, life))
    service = Mortal(world.service, life)
    mortal = msgspec.structs.replace(
        tools,
        queue=service,
        presence=service,
        runs=service,
        jobs=Mortal(world.jobs, life),
        requeues=Mortal(world.requeues, life),
        bundles=Mortal(world.bundles, life),
        targets={"fake": target},
    )
    return Agent(
        mortal, config=config_of({ITEM.queue.name: -1}, grace=30.0), entity=ITEM.queue.entity
    )


async def end_when_launched(world: World, exit_code: int) -> None:
    await until(lambda: world.runner.orders)
    if exit_code == PREEMPTED:
        await world.runner.end(ITEM.run_id, RunEnd(exit_code=None, reason=Reason.PREEMPTED))
        return
    world.service.runs[ITEM.run] = RunView(state="finished" if exit_code == 0 else "failed")
    await world.runner.end(ITEM.run_id, RunEnd(exit_code=exit_code))


async def live(world: World, agent: Agent, exit_code: int, until_: Any) -> None:
    async with running(agent), anyio.create_task_group() as tasks:
        tasks.start_soon(end_when_launched, world, exit_code)
        await until(until_)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("exit_code", [0, 3, PREEMPTED])
async def test_no_crash_loses_or_doubles_an_item(exit_code: int):
    points: list[str] = []
    for calls in range(100):
        world = World()
        world.service.push(ITEM)
        life = Life(calls)
        first = mortal_agent(world, life)
        done = lambda: life.dead.is_set() or first.view().ended  # noqa: B023, E731
        await live(world, first, exit_code, done)
        if not life.dead.is_set():
            break
        points.append(life.last)
        if not world.service.acks:
            world.service.push(ITEM)  # its lease lapses
        second = world.agent()
        finished = ITEM.id not in world.journal.kept and bool(world.service.acks)
        if not finished:
            await live(world, second, exit_code, lambda: second.view().ended)  # noqa: B023
        assert world.runner.launches == {ITEM.run_id: 1}, life.last
        assert not world.journal.kept, life.last
        assert world.runner.removed, life.last
        told = world.service.failed.get(ItemId(ITEM.id))
        assert world.requeues.queued == ({ITEM.id: 1} if exit_code == PREEMPTED else {}), life.last
        if exit_code in {0, PREEMPTED}:
            assert told is None, life.last
        else:
            assert told is not None, life.last
            assert (told[0].reason, told[0].exit_code) == (Reason.EXIT_CODE, 3), life.last
    expected = {"before ack", "after ack", "before launch", "after launch", "after write"}
    assert expected <= set(points)
    assert len(points) > 20
