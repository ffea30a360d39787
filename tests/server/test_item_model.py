"""Three agents and a person, in any order of events, against a model of what was promised.

Items come by priority and, within one, in the order of their pushes; nobody holds what another one
holds; a lease that ran out is worth nothing; nothing is lost.
"""

from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launch_harness import REQUEUE, Launch
from server_harness import Http

pytestmark = pytest.mark.anyio

AGENTS = 3
numbers = iter(range(1_000_000))


class State(Enum):
    """Where an item stands in the model."""

    WAITING = "PENDING"
    LEASED = "LEASED"
    CLAIMED = "CLAIMED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


ENDED = {State.FAILED, State.STOPPED}


class Item(msgspec.Struct):
    """What is promised of one item."""

    id: str
    priority: int
    place: int
    state: State = State.WAITING
    lease: str | None = None
    run: str | None = None
    stop: bool = False
    again: "Item | None" = None


class World:
    """One queue, its agents, and the model beside them."""

    def __init__(self, launch: Launch, queue: str, agents: list[str]) -> None:
        self.launch = launch
        self.queue = queue
        self.agents = agents
        self.items: list[Item] = []
        self.held: list[list[tuple[Item, str]]] = [[] for _ in agents]
        """What each agent was ever given, with its lease."""

    def next_item(self) -> Item | None:
        free = [item for item in self.items if item.state is State.WAITING]
        return min(free, key=lambda item: (item.priority, item.place), default=None)

    def add(self, item_id: str, priority: int) -> Item:
        self.items.append(Item(item_id, priority, len(self.items)))
        return self.items[-1]

    async def push(self, _agent: int, pick: int) -> None:
        priority = pick % 4
        self.add(await self.launch.push(self.queue, priority=priority), priority)

    async def pop(self, agent: int, _pick: int) -> None:
        expected = self.next_item()
        popped = await self.launch.pop(self.queue, self.agents[agent])
        assert (popped and popped["runQueueItemId"]) == (expected and expected.id)
        if expected is not None:
            expected.state, expected.lease = State.LEASED, popped["lease"]
            self.held[agent].append((expected, popped["lease"]))

    async def ack(self, agent: int, pick: int) -> None:
        item, lease = self.chosen(agent, pick)
        if item is None:
            return
        run = f"{self.queue}-{item.place}-{agent}"
        holds = item.lease == lease
        good = holds and (
            item.state is State.LEASED or (item.state is State.CLAIMED and item.run == run)
        )
        assert await self.launch.ack(item.id, run, lease) is good
        if good:
            item.state, item.run = State.CLAIMED, run

    async def fail(self, agent: int, pick: int) -> None:
        item, lease = self.chosen(agent, pick)
        if item is None:
            return
        await self.launch.fail(item.id, lease=lease)
        if item.lease == lease and item.state in {State.LEASED, State.CLAIMED}:
            item.state = State.STOPPED if item.stop else State.FAILED

    async def lapse(self, _agent: int, pick: int) -> None:
        leased = [item for item in self.items if item.state is State.LEASED]
        if leased:
            item = leased[pick % len(leased)]
            await self.launch.lapse(item.id)
            item.state = State.WAITING  # as if nobody had ever had it

    async def cancel(self, _agent: int, pick: int) -> None:
        if not self.items:
            return
        item = self.items[pick % len(self.items)]
        success, state = await self.launch.cancel(item.id)
        if item.state in {State.WAITING, State.LEASED}:
            item.state = State.STOPPED
        elif item.state is State.CLAIMED:
            item.stop = True
        assert success is (item.state is not State.FAILED)
        assert state == item.state.value

    async def requeue(self, _agent: int, pick: int) -> None:
        if not self.items:
            return
        item = self.items[pick % len(self.items)]
        reply = await self.launch.http.ask(REQUEUE, item=item.id)
        if item.state not in ENDED:
            assert reply.status == 409
            return
        assert reply.status == 200, reply.body
        number = reply.json()["data"]["requeueRunQueueItem"]["runQueueItemId"]
        if item.again is None or item.again.state in ENDED:
            item.again = self.add(number, item.priority)
        assert number == item.again.id

    def chosen(self, agent: int, pick: int) -> tuple[Item | None, str]:
        given = self.held[agent]
        return given[pick % len(given)] if given else (None, "")

    async def check(self) -> None:
        """Hold every item against the model."""
        for item in self.items:
            assert await self.launch.state(item.id, self.queue) == item.state.value


EVENTS: list[Callable[[World, int, int], Coroutine[Any, Any, None]]] = [
    World.push,
    World.push,
    World.pop,
    World.pop,
    World.ack,
    World.fail,
    World.lapse,
    World.cancel,
    World.requeue,
]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.sampled_from(EVENTS), st.integers(0, AGENTS - 1), st.integers(0, 7)),
        min_size=5,
        max_size=30,
    )
)
async def test_items_are_as_promised_after_any_events(
    http: Http, events: list[tuple[Any, int, int]]
) -> None:
    launch, queue = Launch(http), f"q{next(numbers)}"
    await launch.queue(queue, mode="V0")
    world = World(launch, queue, [await launch.agent(queue) for _ in range(AGENTS)])
    for event, agent, pick in events:
        await event(world, agent, pick)
    await world.check()
    while world.next_item() is not None:  # what waits is had to the last, in its order
        await world.pop(0, 0)
    await world.pop(1, 0)
