"""Rules of an item's life that show only where its ports forgive, or after it seems to be over."""

from collections.abc import AsyncGenerator

import pytest
from fakes import FakeRunner, World, an_item, running, until

from launch_async.domain.errors import Reason, Unavailable
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunEnd, RunHandle, RunState, RunStatus
from launch_async.ports.runner import LaunchOrder
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio

RUN = an_item().run_id


async def test_an_item_whose_claim_was_lost_is_not_launched_later_and_holds_no_slot():
    world = World()
    lost, next_one = an_item(1), an_item(2)
    world.service.refused_acks.add(lost.id)
    world.service.push(lost, next_one)
    async with running(world.agent(max_jobs=1)) as agent:
        await until(lambda: next_one.run_id in world.runner.orders)
        await world.finish(next_one.run_id)
        await until(lambda: agent.view().ended == {"let_go": 1, "succeeded": 1})
    assert list(world.runner.orders) == [next_one.run_id]
    assert not world.service.failed
    assert not world.service.uploads


@pytest.mark.parametrize("noted", [True, False])
async def test_nothing_is_prepared_again_for_a_run_that_an_earlier_life_began(noted: bool):
    """It works in what was prepared."""
    world = World()
    world.runner.hang_after_create = not noted
    world.service.push(an_item())
    async with running(world.agent()) as first:
        await world.runner.launched.wait()
        if noted:
            await until(lambda: first.view().launched)
    world.builder.hang = True
    async with running(world.agent()) as second:
        await until(lambda: second.view().adopted)
        await world.finish(RUN)
        await until(lambda: second.view().ended)
    assert second.view().ended == {"succeeded": 1}


async def test_a_fault_of_ours_after_the_create_does_not_fail_a_run_that_began():
    class Faulty(FakeRunner):
        async def launch(self, order: LaunchOrder) -> RunHandle:
            await super().launch(order)
            raise KeyError("a fault of ours")

    world = World()
    world.runner = Faulty()
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await world.runner.launched.wait()
        await world.finish(RUN)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"succeeded": 1}


async def test_a_lost_answer_fails_no_item_however_little_patience_is_left():
    world = World()
    world.patience_seconds = 0.0
    world.runner.lose_answers = 1
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await world.runner.launched.wait()
        await world.finish(RUN)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"succeeded": 1}


async def test_each_item_is_given_its_own_run_after_a_crash():
    world = World()
    world.runner.hang_after_create = True
    world.service.push(an_item(1), an_item(2))
    async with running(world.agent()):
        await until(lambda: len(world.runner.orders) == 2)
    await world.finish("runq2", exit_code=3)
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
        assert second.view().ended == {"exit_code": 1}
        await world.finish("runq1")
        await until(lambda: len(second.view().ended) == 2)
    assert second.view().ended == {"exit_code": 1, "succeeded": 1}
    assert list(world.service.failed) == ["q-2"]


async def test_a_watch_that_stops_without_an_end_is_begun_again():
    class Cut(FakeRunner):
        cuts = 1

        async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
            if self.cuts:
                self.cuts -= 1
                yield RunStatus(state=RunState.RUNNING)
                return
            async for status in super().watch(handle):
                yield status

    world = World()
    world.runner = Cut()
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        await world.finish(RUN)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"succeeded": 1}


async def test_a_watch_that_stops_without_an_end_while_the_run_is_stopped_is_begun_again():
    class Cut(FakeRunner):
        async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
            if self.watches == 1:  # the one that begins with the stop request
                self.watches += 1
                yield RunStatus(state=RunState.RUNNING)
                return
            async for status in super().watch(handle):
                yield status

    world = World()
    world.runner = Cut()
    item = an_item()
    world.service.push(item)
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.watches == 1)
        world.service.runs[item.run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert world.runner.watches == 3
    assert not world.runner.alive
    assert agent.view().ended == {"stopped": 1}


async def test_an_item_that_comes_again_while_it_runs_is_the_same_item():
    """Its lease lapsed on the service's side, say."""
    world = World()
    first, marker = an_item(1), an_item(2)
    world.service.push(first)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        world.service.push(first, marker)
        await until(lambda: agent.view().launched == 2)
        await world.finish(first.run_id)
        await world.finish(marker.run_id)
        await until(lambda: sum(agent.view().ended.values()) == 2)
    assert [item for item, _ in world.service.acks] == [first.id, marker.id]


async def test_a_stop_request_that_an_earlier_life_heard_is_carried_out():
    world = World()
    world.stop_grace_seconds = 60.0
    item = an_item()
    world.service.push(item)
    async with running(world.agent()) as first:
        await until(lambda: first.view().launched)
        world.service.runs[item.run] = RunView(state="running", stop_requested=True)
        await until(lambda: world.journal.kept[item.id].stop_requested)
    world.service.runs[item.run] = RunView(state="running")
    world.stop_grace_seconds = 0.01
    async with running(world.agent()):
        await until(lambda: world.runner.cancelled)
    assert world.runner.cancelled[0] == item.run_id


async def test_a_verdict_that_was_reached_stands_when_its_evidence_is_gone():
    world = World()
    item = an_item()
    world.service.plant("fail", *[Unavailable("down")] * 1000)
    world.service.push(item)
    async with running(world.agent()) as first:
        await until(lambda: first.view().launched)
        await world.finish(item.run_id, exit_code=3)
        await until(lambda: world.journal.kept[item.id].phase is Phase.REPORTING)
    world.service.faults.clear()
    world.runner.ends[item.run_id] = RunEnd(exit_code=None, reason=Reason.VANISHED)
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
    [(outcome, _)] = world.service.failed.values()
    assert (outcome.reason, outcome.exit_code) == (Reason.EXIT_CODE, 3)
