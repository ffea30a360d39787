"""A whole agent whose control plane hangs on requests that name certain queues, over real HTTP.

A call's time limit is 2 s here instead of 30.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import msgspec
import pytest
from aiohttp import web
from fakes import FakeService, World, queue_ref, until

from launch_async.adapters.queues.wandb import WandbQueueService
from launch_async.agent.poller import PLACES, Standing
from launch_async.domain.secret import Secret
from launch_async.wire.lanes import Lane, Lanes
from launch_async.wire.transport import Transport
from wire.scripted_api import SortedApi, answering, scripted_api

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 2.0
POLL_SECONDS = 0.1
KEPT_SECONDS = 1.0
"""A pause between two looks that is longer was a wait for somebody else."""
WITHIN_SECONDS = 30.0


class Plane(SortedApi):
    """Its queues are empty; what names a queue of `hanging` gets no answer."""

    def __init__(self, names: Sequence[str], *, hanging: Sequence[str]) -> None:
        super().__init__()
        agent = {"id": "a", "name": "agent-1", "stopPolling": False}
        listed = [{"id": name, "name": name} for name in names]
        self.by_verb |= {
            "ProjectRunQueues": answering(body={"project": {"runQueues": listed}}),
            "createLaunchAgent": answering(body={"createLaunchAgent": {"launchAgentId": "a"}}),
            "LaunchAgent": answering(body={"launchAgent": agent}),
            "popFromRunQueue": self.look,
        }
        self.names = names
        self.hanging = set(hanging)
        self.asked: list[frozenset[str]] = []
        """The queues of each request."""
        self.answers: Mapping[str, list[float]] = defaultdict(list)
        """When each queue's looks were answered."""

    async def look(self, request: web.Request) -> web.StreamResponse:
        variables = msgspec.json.decode(await request.read())["variables"]
        named = [name for key, name in variables.items() if key[0] == "q"]
        self.asked.append(frozenset(named))
        if self.hanging.intersection(named):
            return await self.hang(request)
        for name in named:
            self.answers[name].append(anyio.current_time())
        return await answering(body={f"p{index}": None for index in range(len(named))})(request)

    def asked_alone(self, name: str) -> int:
        return self.asked.count(frozenset({name}))

    def longest_pause(self, *, since: float) -> float:
        """Of a healthy queue, between two looks or since the last."""
        now = anyio.current_time()
        pauses = [0.0]
        for name in set(self.names) - self.hanging:
            moments = [since, *(at for at in self.answers[name] if at > since), now]
            pauses += [late - early for early, late in pairwise(moments)]
        return max(pauses)


class Service(WandbQueueService):
    """The real one; what it does not serve is faked."""

    def __getattr__(self, name: str) -> object:
        return getattr(FAKE, name)


FAKE = FakeService()


@asynccontextmanager
async def polling(plane: Plane, *, max_jobs: int = -1) -> AsyncGenerator[Lanes]:
    """An agent that polls all queues of the plane."""
    world = World()
    world.section = {"poll": POLL_SECONDS, "poll_max": POLL_SECONDS, "heartbeat": 1.0}
    lanes = Lanes.guarded()
    async with (
        scripted_api(api=plane),
        Transport.open(
            base_url=plane.url,
            api_key=Secret("k" * 40),
            call_timeout_seconds=LIMIT_SECONDS,
            lanes=lanes,
        ) as transport,
    ):
        refs = [queue_ref(name) for name in plane.names]
        world.service = Service(  # type: ignore[assignment]
            transport, queues=refs, hostname="h", agent_config={}
        )
        agent = world.agent(limits=dict.fromkeys(plane.names, -1), max_jobs=max_jobs)
        with anyio.fail_after(WITHIN_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(agent.run)
                yield lanes
                tasks.cancel_scope.cancel()


async def test_a_queue_that_hangs_costs_the_others_one_time_limit_once():
    others = frozenset(f"q{number}" for number in range(30))
    names = [*sorted(others)[:15], "bad", *sorted(others)[15:]]
    plane = Plane(names, hanging=["bad"])
    async with polling(plane):
        await until(lambda: plane.asked)
        began = anyio.current_time()
        await until(lambda: plane.answers.keys() == others)
        known = anyio.current_time()
        assert known - began < LIMIT_SECONDS + KEPT_SECONDS
        await until(lambda: plane.asked_alone("bad") == 3)
        assert plane.longest_pause(since=known) < KEPT_SECONDS
        shared = [request for request in plane.asked if "bad" in request and len(request) > 1]
        assert shared == [frozenset(names)]
        await until(lambda: others in plane.asked)


async def test_many_queues_that_hang_take_no_places_of_the_others():
    hanging = [f"bad{number}" for number in range(PLACES[Standing.TRUSTED] + 2)]
    plane = Plane([*hanging, *(f"q{number}" for number in range(10))], hanging=hanging)
    async with polling(plane) as lanes:
        await until(lambda: plane.asked)
        began = anyio.current_time()
        await until(lambda: len(plane.answers) == 10)
        known = anyio.current_time()
        assert known - began < LIMIT_SECONDS + KEPT_SECONDS
        asked_by_then = len(hanging) + 2 * PLACES[Standing.SICK]
        await until(lambda: sum(map(plane.asked_alone, hanging)) == asked_by_then)
        assert lanes[Lane.POPS].view().in_flight <= PLACES[Standing.SICK] + 1
        plane.hanging.clear()
        await until(lambda: all(plane.answers[name] for name in hanging))
        plane.hanging.update(hanging)
        assert plane.longest_pause(since=known) < KEPT_SECONDS


async def test_a_queue_that_hangs_keeps_no_slot_from_the_others():
    plane = Plane(["bad", "q", "r"], hanging=["bad"])
    async with polling(plane, max_jobs=1):
        await until(lambda: plane.asked_alone("bad") == 2)
        known = anyio.current_time()
        await until(lambda: plane.asked_alone("bad") == 3)
        assert anyio.current_time() - known >= LIMIT_SECONDS
        assert plane.longest_pause(since=known) < KEPT_SECONDS
