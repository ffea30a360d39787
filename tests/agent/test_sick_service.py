"""A whole agent beside a control plane that is slow, away or wants quiet, over real HTTP.

What takes 20 s or half an hour in the world takes a second here: the waits are settings. Rows R14,
R18, R19 and R38 of the fault catalogue.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest
from aiohttp import web
from fakes import FakeRunner, FakeService, World, queue_ref, running, until
from structlog.testing import capture_logs

from launch_async.adapters.queues.wandb import WandbQueueService
from launch_async.agent.agent import Agent
from launch_async.domain.run import RunEnd, RunHandle, RunStatus
from launch_async.domain.secret import Secret
from launch_async.kit.lag import LoopLag
from launch_async.wire.lanes import Lane, Lanes
from launch_async.wire.transport import Transport
from wire.scripted_api import Handler, SortedApi, answering, scripted_api

pytestmark = pytest.mark.anyio

INTERVAL_SECONDS = 0.5
MAX_LAG_SECONDS = 0.25
SPEC = {"project": "p", "entity": "me", "resource": "fake", "job": "me/p/j:latest"}
QUEUES = ("q", "r", "s")


class ControlPlane(SortedApi):
    """Registers agents, has one item, and answers all else with nothing."""

    def __init__(self) -> None:
        super().__init__()
        queues = [{"id": f"id-{name}", "name": name} for name in QUEUES]
        agent = {"id": "a", "name": "agent-1", "stopPolling": False}
        self.by_verb |= {
            "ProjectRunQueues": answering(body={"project": {"runQueues": queues}}),
            "createLaunchAgent": answering(body={"createLaunchAgent": {"launchAgentId": "a"}}),
            "LaunchAgent": answering(body={"launchAgent": agent}),
            "popFromRunQueue": self.give_one,
            "CreateRunFiles": self.take_file,
            "ackRunQueueItem": answering(body={"ackRunQueueItem": {"success": True}}),
        }
        self.items = 1
        self.pause_seconds = 0.0
        self.sick: Handler | None = None

    async def give_one(self, request: web.Request) -> web.StreamResponse:
        item = {"runQueueItemId": "item-1", "runSpec": SPEC} if self.items else None
        self.items = 0
        return await answering(body={"p0": item, "p1": None, "p2": None})(request)

    async def take_file(self, request: web.Request) -> web.StreamResponse:
        files = [{"name": "f", "uploadUrl": f"{self.url}/upload"}]
        body = {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        return await answering(body=body)(request)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.sick is not None:
            self.arrivals.append(anyio.current_time())
            self.verbs.append("sick")
            return await self.sick(request)
        await anyio.sleep(self.pause_seconds)
        if request.method == "PUT":
            return web.Response()
        return await super().handle(request)

    def seen(self, verb: str) -> int:
        return self.verbs.count(verb)


@pytest.fixture
async def plane(anyio_backend: str) -> AsyncGenerator[ControlPlane]:
    async with scripted_api(api=ControlPlane()) as running_plane:
        yield running_plane


class Service(WandbQueueService):
    """The real one; what it does not serve is faked."""

    def __getattr__(self, name: str) -> object:
        return getattr(FAKE, name)


class BlockingRunner(FakeRunner):
    """Its watch blocks the loop, as a careless library would."""

    block: Callable[[], None] = staticmethod(lambda: None)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        async with aclosing(super().watch(handle)) as statuses:
            async for status in statuses:
                if status.end is not None:
                    self.block()
                yield status


class SlowWorld(World):
    """Polls each half second; its runner may block."""

    lanes: Lanes

    def __init__(self) -> None:
        super().__init__()
        self.runner = BlockingRunner()
        self.section = {"poll": INTERVAL_SECONDS, "poll_max": INTERVAL_SECONDS, "heartbeat": 0.05}


FAKE = FakeService()


@asynccontextmanager
async def agent_of(plane: ControlPlane, world: SlowWorld) -> AsyncGenerator[Agent]:
    """An agent with one running item, unless the plane has none."""
    lanes = Lanes.guarded(open_seconds=INTERVAL_SECONDS)
    async with Transport.open(
        base_url=plane.url, api_key=Secret("k" * 40), lanes=lanes
    ) as transport:
        world.lanes = lanes
        world.service = Service(
            transport, queues=[queue_ref(name) for name in QUEUES], hostname="h", agent_config={}
        )
        agent = world.agent(limits=dict.fromkeys(QUEUES, -1))
        agent.lag = LoopLag(interval_seconds=0.01, limit_seconds=0.2)
        async with running(agent):
            if plane.items:
                await world.runner.launched.wait()
                await until(lambda: agent.view().items[0].phase == "running")
            yield agent


async def end_the_item(world: SlowWorld) -> None:
    run_id = next(iter(world.runner.orders))
    await world.runner.end(run_id, RunEnd(exit_code=3))


async def test_pops_that_hang_silence_neither_heartbeats_nor_reports(plane: ControlPlane):
    world = SlowWorld()
    async with agent_of(plane, world):
        plane.by_verb["popFromRunQueue"] = plane.hang
        await until(lambda: plane.waiting)
        beats = plane.seen("updateLaunchAgent")
        await until(lambda: plane.seen("updateLaunchAgent") >= beats + 5)
        await end_the_item(world)
        await until(lambda: plane.seen("failRunQueueItem") == 1)
        assert plane.waiting


async def test_a_slow_service_leaves_the_loop_free_and_items_watched(plane: ControlPlane):
    world = SlowWorld()
    async with agent_of(plane, world) as agent:
        plane.pause_seconds = 1.0
        await end_the_item(world)
        await until(lambda: plane.seen("failRunQueueItem") == 1)
        await until(lambda: len(agent.lag._samples) > 100)
        assert agent.lag.window()[0] < MAX_LAG_SECONDS


@pytest.mark.parametrize("status", [500, 503])
async def test_after_an_outage_pops_resume_within_two_intervals_and_ends_are_told(
    plane: ControlPlane, status: int
):
    world = SlowWorld()
    async with agent_of(plane, world) as agent:
        plane.sick = answering(status)
        await end_the_item(world)
        pops = world.lanes[Lane.POPS]
        await until(lambda: pops.view().requests.get(("popFromRunQueue", "5xx"), 0) >= 3)
        plane.sick = None
        back, seen = anyio.current_time(), plane.seen("popFromRunQueue")
        await until(lambda: plane.seen("popFromRunQueue") > seen)
        assert anyio.current_time() - back < 2 * INTERVAL_SECONDS + MAX_LAG_SECONDS
        await until(lambda: plane.seen("failRunQueueItem") == 1)
        await until(lambda: not len(agent._tools.table))


async def test_a_service_that_wants_quiet_gets_it_and_is_polled_again(plane: ControlPlane):
    plane.items = 0
    async with agent_of(plane, SlowWorld()):
        await until(lambda: plane.seen("popFromRunQueue"))
        plane.by_verb["popFromRunQueue"] = answering(429, Retry_After="1")
        seen = plane.seen("popFromRunQueue")
        await until(lambda: plane.seen("popFromRunQueue") > seen)
        asked, seen = anyio.current_time(), plane.seen("popFromRunQueue")
        plane.by_verb["popFromRunQueue"] = plane.give_one
        await until(lambda: plane.seen("popFromRunQueue") > seen)
        assert anyio.current_time() - asked >= 0.9


async def test_a_call_that_blocks_the_loop_is_named_with_its_item(plane: ControlPlane):
    world = SlowWorld()
    with capture_logs() as logs:
        async with agent_of(plane, world) as agent:

            def block() -> None:
                end = time.monotonic() + 10
                while not agent.lag.wedged and time.monotonic() < end:
                    time.sleep(0.01)

            world.runner.block = block
            await end_the_item(world)
            await until(lambda: agent.lag.blocks and not agent.lag.wedged)
    blocked = [line for line in logs if line["event"] == "event loop is blocked"]
    assert [line["task"] for line in blocked] == ["item item-1"]
