"""What the agent finds on its backends and does not know: taken up, removed, or an orphan."""

from collections.abc import Sequence

import anyio
import msgspec
import pytest
from fakes import FakeRunner, World, an_item, running, until

from launch_async.agent.agent import Agent
from launch_async.domain.errors import Reason, Unavailable
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.phase import Phase
from launch_async.domain.run import FoundRun, RunEnd
from launch_async.ports.backends import BackendView
from launch_async.ports.claims import Claim
from launch_async.ports.journal import Entry
from operated_agent import a_backend

pytestmark = pytest.mark.anyio

ITEM = ItemId("q-1")
RUN = RunId("runq1")


async def left_behind(world: World, *, claim: Claim | None = Claim.HELD) -> None:
    """A run whose agent was killed, and whose journal was deleted then."""
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
    world.journal.kept.clear()
    if claim is not None:
        world.service.claims[ITEM] = claim


def orphans(agent: Agent) -> list[str]:
    return [orphan.why for orphan in agent._recovery.orphans.values()]


async def test_with_the_journal_lost_a_run_is_taken_up_and_its_end_reported():
    world = World()
    await left_behind(world)
    async with running(world.agent()) as second:
        await until(lambda: second.view().items)
        assert world.journal.kept[ITEM].phase is Phase.RUNNING
        await world.finish(RUN, 3)
        await until(lambda: second.view().ended)
    assert second.view().ended == {"exit_code": 1}
    assert second.view().adopted == 1
    assert world.service.failed[ITEM][0].exit_code == 3
    assert world.runner.launches == {RUN: 1}
    assert world.runner.removed == [RUN]


async def test_with_the_journal_lost_a_run_that_ended_meanwhile_is_reported_once_and_removed():
    world = World()
    await left_behind(world)
    await world.finish(RUN, 3)
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
    assert second.view().ended == {"exit_code": 1}
    world.service.claims[ITEM] = Claim.ENDED
    async with running(world.agent()) as third:
        await until(lambda: third.view().name)
    assert third.view().adopted == 0


async def test_what_an_item_is_made_of_again_holds_its_claim_and_no_key():
    world = World()
    item = msgspec.structs.replace(an_item(author="ann"), lease="f" * 32)
    world.service.push(item)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
    world.journal.kept.clear()
    world.service.claims[ITEM] = Claim.HELD
    async with running(world.agent()) as second:
        await until(lambda: second.view().items)
        assert second.view().lost_runs == {"recovered": 1}
        assert world.journal.kept[ITEM].item == msgspec.structs.replace(
            item, spec=msgspec.structs.replace(item.spec, run_id=item.run_id)
        )


@pytest.mark.parametrize("begun", [True, False])
async def test_leftovers_of_an_item_that_has_ended_are_removed_and_nothing_is_said_of_it(
    begun: bool,
):
    world = World()
    await left_behind(world, claim=Claim.ENDED)
    if begun:
        await world.finish(RUN, 3)
    else:
        world.runner.prepared.add(RUN)
    async with running(world.agent()) as second:
        await until(lambda: second.view().lost_runs)
        assert second.view().lost_runs == {"removed": 1}
    assert world.runner.removed == [RUN]
    assert not world.service.failed


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (Claim.ENDED, "its item has ended"),
        (Claim.OTHERS, "not this agent's any more"),
        (None, "does not know its item"),
    ],
)
async def test_a_run_that_no_item_is_about_is_shown_and_left_alone(claim: Claim | None, why: str):
    world = World()
    world.orphan_grace_seconds = 0.0
    await left_behind(world, claim=claim)
    async with running(world.agent()) as second:
        await until(lambda: orphans(second))
        await second._recovery.look("fake", second._tools.targets["fake"])
        assert why in orphans(second)[0]
    assert world.runner.alive
    assert not world.runner.removed


async def test_an_orphan_is_ended_after_its_grace_and_not_before():
    world = World()
    world.end_orphans = True
    world.orphan_grace_seconds = 0.2
    await left_behind(world, claim=Claim.OTHERS)
    async with running(world.agent()) as second:
        await until(lambda: orphans(second))
        seen = anyio.current_time()
        target = second._tools.targets["fake"]
        await second._recovery.look("fake", target)
        assert world.runner.alive
        while not world.runner.removed:
            await second._recovery.look("fake", target)
            await anyio.sleep(0.01)
        assert anyio.current_time() - seen > 0.15
        assert not orphans(second)
        assert second.view().lost_runs == {"ended": 1}
    assert world.runner.cancelled == [RUN]


async def test_a_run_of_another_service_is_never_ended():
    world = World()
    world.end_orphans = True
    world.orphan_grace_seconds = 0.0
    await left_behind(world, claim=None)
    order = world.runner.orders[RUN]
    elsewhere = msgspec.structs.replace(order.origin, service="http://elsewhere")
    world.runner.orders[RUN] = msgspec.structs.replace(order, origin=elsewhere)
    async with running(world.agent()) as second:
        await until(lambda: orphans(second))
        await second._recovery.look("fake", second._tools.targets["fake"])
    assert orphans(second) == ["it was launched for http://elsewhere"]
    assert world.runner.alive


async def test_what_was_made_and_never_begun_is_failed_with_the_remedy_and_removed():
    world = World()
    await left_behind(world)
    world.runner.prepared.add(RUN)
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
    outcome, _ = world.service.failed[ITEM]
    assert outcome.reason is Reason.LAUNCH_FAILED
    assert "Launch the item again" in outcome.message
    assert world.runner.removed == [RUN]


async def test_while_the_service_is_away_nothing_that_is_found_is_judged():
    world = World()
    world.end_orphans = True
    world.orphan_grace_seconds = 0.0
    await left_behind(world)
    world.service.plant("look_up_items", *[Unavailable("down")] * 5)
    async with running(world.agent()) as second:
        await until(lambda: second.view().items)
    assert second.view().adopted == 1
    assert world.runner.alive


async def test_a_run_of_this_life_is_judged_by_the_second_look_only():
    world = World()
    async with running(world.agent()) as agent:
        target = agent._tools.targets["fake"]
        world.service.push(an_item())
        await until(lambda: agent.view().launched)
        tracked = agent._tools.table._items.pop(ITEM)  # as if its end were just being told
        await agent._recovery.look("fake", target)
        assert not orphans(agent)
        await agent._recovery.look("fake", target)
        assert orphans(agent)
        agent._tools.table._items[ITEM] = tracked
        await agent._recovery.look("fake", target)
        assert not orphans(agent)


async def test_many_items_that_were_being_launched_share_a_few_looks():
    world = World()
    numbers = range(1, 101)
    for number in numbers:
        item = an_item(number)
        world.journal.kept[item.id] = Entry(item=item, phase=Phase.LAUNCHING)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched == len(numbers))
    assert world.runner.finds <= 3


async def test_an_ended_run_whose_removal_failed_is_removed_by_a_later_look():
    world = World()
    world.runner.plant("remove", OSError("busy"))
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        await world.finish(RUN)
        await until(lambda: agent.view().ended)
        assert not world.runner.removed
        world.service.claims[ITEM] = Claim.ENDED
        for _ in range(2):
            await agent._recovery.look("fake", agent._tools.targets["fake"])
    assert world.runner.removed == [RUN]
    assert world.runner.ends == {RUN: RunEnd(exit_code=0)}


class SickBackend(FakeRunner):
    """Shows itself, and is away until it is well."""

    def __init__(self) -> None:
        super().__init__()
        self.well = False
        self.tries = 0

    async def find(self, identity: str) -> Sequence[FoundRun]:
        self.tries += 1
        if not self.well:
            raise Unavailable("the backend is away")
        return await super().find(identity)

    def backends(self) -> Sequence[BackendView]:
        return [a_backend("fake", breaker=0 if self.well else 1)]


def needed(agent: Agent) -> list[bool]:
    return [view.needed for view in agent.backends()]


async def test_a_backend_that_is_away_and_has_no_items_does_not_keep_the_agent_from_polling():
    world = World()
    world.runner = backend = SickBackend()
    async with running(world.agent()) as agent:
        await until(lambda: world.service.pops)
        assert needed(agent) == [False]
        world.service.push(an_item())
        await until(lambda: agent.view().items)
        assert needed(agent) == [True]
        assert not backend.well


async def test_a_backend_that_is_away_and_has_an_item_is_waited_for():
    world = World()
    await left_behind(world)
    [order] = world.runner.orders.values()
    item = an_item()
    world.journal.kept[ITEM] = Entry(
        item=item, phase=Phase.RUNNING, handle=world.runner._handle(order)
    )
    world.service.pops.clear()
    world.runner, orders = SickBackend(), world.runner.orders
    world.runner.orders = orders
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.tries > 5)
        assert needed(agent) == [True], "an adopted item needs it"
        assert not agent.view().recovered
        assert not world.service.pops
        world.runner.well = True
        await until(lambda: world.service.pops)


async def test_a_run_found_later_on_a_backend_that_was_away_is_taken_up():
    world = World()
    await left_behind(world)
    backend = SickBackend()
    backend.orders = world.runner.orders
    world.runner = backend
    world.service.pops.clear()
    async with running(world.agent()) as agent:
        await until(lambda: world.service.pops)
        assert not agent.view().items
        backend.well = True
        await until(lambda: agent.view().lost_runs == {"recovered": 1})


async def test_a_backend_with_orphans_is_needed():
    world = World()
    await left_behind(world, claim=Claim.OTHERS)
    backend = SickBackend()
    backend.well = True
    backend.orders = world.runner.orders
    world.runner = backend
    async with running(world.agent()) as agent:
        await until(lambda: orphans(agent))
        assert needed(agent) == [True]
