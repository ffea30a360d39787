"""What an agent's operator cancels: the run hears of it, and the item's user reads who did it."""

import anyio
import pytest
from fakes import World, an_item, running, until

from launch_async.agent.agent import Agent
from launch_async.domain.errors import Reason, Unavailable
from launch_async.domain.ids import ItemId
from launch_async.domain.outcome import Outcome
from launch_async.domain.run import RunEnd
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio

ITEM = ItemId("q-1")
LONG = 3600.0


async def running_item(world: World, agent: Agent) -> None:
    world.service.push(an_item())
    await until(lambda: agent.view().phases == {"q": {"running": 1}})


def told(world: World) -> Outcome:
    return world.service.failed[ITEM][0]


async def test_a_run_that_is_cancelled_hears_of_it_and_ends_by_itself():
    world = World()
    world.stop_grace_seconds = LONG
    async with running(world.agent()) as agent:
        await running_item(world, agent)
        assert await agent.cancel(ITEM)
        await until(lambda: world.service.asked_to_stop)
        await world.finish("runq1", exit_code=255)
        await until(lambda: agent.view().ended)
    assert world.service.asked_to_stop == [an_item().run]
    assert world.service.warned == [(ITEM, "cancelled by the agent's operator")]
    assert agent.view().ended == {"stopped": 1}
    assert not world.runner.cancelled
    assert told(world).reason is Reason.STOPPED
    assert told(world).message.startswith("cancelled by the agent's operator")


@pytest.mark.parametrize("answered", [True, False])
async def test_a_cancelled_run_that_does_not_end_is_ended_after_its_grace(answered: bool):
    world = World()
    if not answered:
        world.service.plant("ask_to_stop", *[Unavailable("down")] * 1000)
    async with running(world.agent()) as agent:
        await running_item(world, agent)
        world.service.runs[an_item().run] = RunView(state="running")
        await agent.cancel(ITEM)
        await until(lambda: agent.view().ended)
    assert world.runner.cancelled == ["runq1"]
    assert told(world).reason is Reason.STOPPED
    assert told(world).message.startswith("cancelled by the agent's operator")


async def test_the_next_life_knows_who_cancelled_it_and_asks_again():
    world = World()
    world.stop_grace_seconds = LONG
    async with running(world.agent()) as first:
        await running_item(world, first)
        await first.cancel(ITEM)
        await until(lambda: world.service.asked_to_stop)
    world.service.asked_to_stop.clear()
    async with running(world.agent()) as second:
        await until(lambda: world.service.asked_to_stop)
        await world.finish("runq1", exit_code=255)
        await until(lambda: second.view().ended)
    assert told(world).message.startswith("cancelled by the agent's operator")


async def test_a_cancelled_item_that_was_not_launched_says_who_did_it():
    world = World()
    world.builder.hang = True
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await world.builder.building.wait()
        await agent.cancel(ITEM)
        await until(lambda: world.service.failed)
    assert told(world).message == "cancelled by the agent's operator before it was launched"
    assert not world.service.asked_to_stop


async def test_a_run_that_ends_well_though_it_was_cancelled_has_succeeded():
    world = World()
    world.stop_grace_seconds = LONG
    async with running(world.agent()) as agent:
        await running_item(world, agent)
        await agent.cancel(ITEM)
        await world.finish("runq1")
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"succeeded": 1}


async def test_the_service_is_not_told_of_its_own_stop():
    world = World()
    world.stop_grace_seconds = LONG
    async with running(world.agent()) as agent:
        await running_item(world, agent)
        world.service.runs[an_item().run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.item(ITEM).detail == "stop requested")
        await anyio.wait_all_tasks_blocked()
        assert not world.service.asked_to_stop
        world.service.runs[an_item().run] = RunView(state="killed", stop_requested=True)
        await world.runner.end("runq1", RunEnd(exit_code=255))
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}
    assert not world.service.failed, "the item follows its run"
