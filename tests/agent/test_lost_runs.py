"""Runs that their backend lost: what the W&B run says of its end is asked for, and for how long."""

from collections.abc import Mapping, Sequence

import anyio
import pytest
from fakes import World, an_item, running, until

from launch_async.domain.errors import Reason, Unavailable
from launch_async.domain.ids import ItemId, RunRef
from launch_async.domain.run import RunEnd
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio

LONG = 3600.0
LOST = RunEnd(exit_code=None, reason=Reason.VANISHED, lost=True, detail="its object is gone")
ITEM = an_item()
ASKING = "asking its run"


async def lose(world: World, *, word: RunView | None, end: RunEnd = LOST) -> Mapping[str, int]:
    """One item's run is lost once it runs; how the item ended."""
    world.service.push(ITEM)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        if word is not None:
            world.service.runs[ITEM.run] = word
        await world.runner.end(ITEM.run_id, end)
        await until(lambda: agent.view().ended)
    assert not world.journal.kept
    return agent.view().ended


def message(world: World) -> str:
    outcome, _ = world.service.failed[ItemId("q-1")]
    return outcome.message.split("\n")[0]


async def test_a_lost_run_that_finished_succeeded():
    world = World()
    assert await lose(world, word=RunView(state="finished")) == {"succeeded": 1}
    assert not world.service.failed
    assert world.runner.removed == [ITEM.run_id]


async def test_what_somebody_removed_while_it_ran_has_failed_whatever_its_run_says():
    """A program that leaves in order when it is told to go may have finished its run by that."""
    world = World()
    removed = RunEnd(exit_code=None, reason=Reason.VANISHED, detail="deleted by somebody else")
    assert await lose(world, word=RunView(state="finished"), end=removed) == {"vanished": 1}


@pytest.mark.parametrize(
    ("state", "reason", "says"),
    [
        ("failed", Reason.EXIT_CODE, "that it failed"),
        ("crashed", Reason.VANISHED, "that it crashed"),
        ("killed", Reason.VANISHED, "that it was killed"),
        ("preempted", Reason.VANISHED, "that it was preempted"),
    ],
)
async def test_a_lost_run_that_ended_badly_fails_its_item_in_its_own_words(
    state: str, reason: Reason, says: str
):
    world = World()
    assert await lose(world, word=RunView(state=state)) == {reason: 1}
    assert says in message(world)
    assert "its object is gone" in message(world)


@pytest.mark.parametrize("state", [None, "pending", "running", "preempting", "hidden", "new"])
async def test_a_lost_run_that_tells_of_no_end_has_vanished(state: str | None):
    world = World()
    word = None if state is None else RunView(state=state)
    assert await lose(world, word=word) == {"vanished": 1}
    assert message(world).startswith("the job ended (its object is gone)")


async def test_a_lost_run_may_tell_of_its_end_a_little_later():
    world = World()
    world.run_look_up_pauses = (0.0, *[0.01] * 1000)
    world.service.push(ITEM)
    world.service.runs[ITEM.run] = RunView(state="running")
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        await world.runner.end(ITEM.run_id, LOST)
        await until(lambda: any(ASKING in one.detail for one in agent.view().items))
        world.service.runs[ITEM.run] = RunView(state="finished")
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"succeeded": 1}


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_a_service_that_is_away_keeps_the_slot_of_a_lost_run_for_a_while_only(how: str):
    world = World()
    world.run_word_seconds = 0.1
    world.service.push(ITEM, an_item(2))

    async def look_up(runs: Sequence[RunRef]) -> Mapping[RunRef, RunView]:
        if how == "hangs":
            await anyio.sleep_forever()
        raise Unavailable("down")

    world.service.look_up = look_up
    async with running(world.agent(max_jobs=1)) as agent:
        await until(lambda: agent.view().launched)
        await world.runner.end(ITEM.run_id, LOST)
        await until(lambda: agent.view().launched == 2)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"vanished": 1}
    assert message(world).startswith("the job ended (its object is gone)")


@pytest.mark.parametrize("seen", [False, True])
async def test_the_end_of_an_earlier_item_with_the_same_run_is_no_news(seen: bool):
    world = World()
    again = an_item(run_id=ITEM.run_id)
    world.service.runs[again.run] = RunView(state="finished")
    world.service.push(again)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        if seen:
            world.service.runs[again.run] = RunView(state="running")
            await until(lambda: agent._tools.table.get(again.id).run_lived)
            world.service.runs[again.run] = RunView(state="finished")
        await world.runner.end(again.run_id, LOST)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"succeeded" if seen else "vanished": 1}


async def test_a_lost_run_whose_user_had_stopped_it_was_stopped():
    world = World()
    world.section = {"heartbeat": LONG}
    word = RunView(state="killed", stop_requested=True)
    assert await lose(world, word=word) == {"stopped": 1}
    assert not world.service.failed


async def test_a_stop_ends_the_wait_for_the_word_of_a_lost_run():
    world = World()
    world.run_look_up_pauses = (0.0, LONG)
    world.service.push(ITEM)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        await world.runner.end(ITEM.run_id, LOST)
        await until(lambda: any(ASKING in one.detail for one in agent.view().items))
        world.service.runs[ITEM.run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}


async def test_an_agent_that_is_killed_while_it_asks_asks_again():
    world = World()
    world.run_look_up_pauses = (0.0, LONG)
    world.service.push(ITEM)
    async with running(world.agent()) as first:
        await until(lambda: first.view().launched)
        await world.runner.end(ITEM.run_id, LOST)
        await until(lambda: any(ASKING in one.detail for one in first.view().items))
    world.service.runs[ITEM.run] = RunView(state="finished")
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
    assert second.view().ended == {"succeeded": 1}


async def test_many_runs_that_are_lost_at_once_are_few_requests():
    world = World()
    world.section = {"heartbeat": LONG}
    items = [an_item(number) for number in range(100)]
    world.service.push(*items)
    asked: list[int] = []
    answers = anyio.Event()
    look_up = world.service.look_up

    async def counted(runs: Sequence[RunRef]) -> Mapping[RunRef, RunView]:
        asked.append(len(runs))
        await answers.wait()
        return await look_up(runs)

    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched == len(items))
        world.service.look_up = counted
        world.service.runs |= {item.run: RunView(state="finished") for item in items}
        for item in items:
            await world.runner.end(item.run_id, LOST)
        await until(lambda: all(ASKING in one.detail for one in agent.view().items))
        answers.set()
        await until(lambda: agent.view().ended == {"succeeded": len(items)})
    assert len(asked) == 2
