"""Limits of time and stop requests, in every phase of an item's life."""

import time
from typing import Any

import anyio
import msgspec
import pytest
from fakes import DEADLINE_SECONDS, World, an_item, running, until

from launch_async.agent.heartbeat import Heartbeat
from launch_async.agent.table import Table
from launch_async.agent.timeouts import QueueTimeouts, Timeouts, timeouts_of
from launch_async.config.model import LaunchConfig
from launch_async.domain.errors import Reason, Unavailable
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunEnd, StartCause
from launch_async.kit.clock import Moment, moment_at, moment_now, seconds_since
from launch_async.ports.presence import AgentStatus
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio

LONG = 3600.0


async def test_a_run_that_takes_too_long_is_ended_with_the_limit_and_its_setting():
    world = World()
    world.timeouts = Timeouts(run_seconds=LONG, queues={"q": QueueTimeouts(run_seconds=0.02)})
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.service.failed)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert outcome.reason is Reason.RUN_TIMEOUT
    assert "not done within 0.02 s (`run_timeout of the queue q`)" in outcome.message
    assert world.runner.cancelled == ["runq1"]


@pytest.mark.parametrize("own", [None, 0.0])
async def test_a_queue_may_have_no_limit_where_its_agent_has_one(own: float | None):
    world = World()
    world.timeouts = Timeouts(run_seconds=0.02, queues={"q": QueueTimeouts(run_seconds=own)})
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        with anyio.move_on_after(0.1):
            await until(lambda: world.runner.cancelled)
        assert bool(world.runner.cancelled) is (own is None)


async def test_a_start_timeout_says_what_the_backend_says():
    world = World()
    world.timeouts = Timeouts(start_seconds=0.02)
    world.runner.starting.add(RunId("runq1"))
    world.runner.says = {"detail": "no machine has 9 GPUs"}
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.service.failed)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert outcome.reason is Reason.START_TIMEOUT
    assert "within 0.02 s (`agent.start_timeout`)" in outcome.message
    assert "no machine has 9 GPUs" in outcome.message


async def failure(world: World) -> str:
    """The message of the one item, which the agent fails."""
    await until(lambda: world.service.failed)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert outcome.reason is Reason.START_TIMEOUT
    return outcome.message


def starting(**words: Any) -> World:
    world = World()
    world.runner.starting.add(RunId("runq1"))
    world.runner.says = words
    world.service.push(an_item())
    return world


async def test_a_cause_may_have_a_limit_of_its_own():
    world = starting(detail="no such image", cause=StartCause.IMAGE)
    world.timeouts = Timeouts(start_seconds=LONG, causes={StartCause.IMAGE: 0.02})
    async with running(world.agent()):
        message = await failure(world)
    assert "longer than 0.02 s (`agent.start_timeouts.image`)" in message
    assert "no such image" in message


async def test_the_limit_of_a_cause_counts_while_it_lasts():
    world = starting(detail="no such image", cause=StartCause.IMAGE)
    world.timeouts = Timeouts(causes={StartCause.IMAGE: 0.3})
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().items and "image" in agent.view().items[0].detail)
        await world.runner.say(detail="almost", cause=StartCause.PREPARING)
        await anyio.sleep(0.5)  # the limit would have ended it by now
        assert not world.runner.cancelled


async def test_a_run_that_is_held_back_on_purpose_has_no_start_timeout():
    world = starting(detail="not seen yet", cause=StartCause.PREPARING)
    world.timeouts = Timeouts(start_seconds=0.2)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().items and "not seen" in agent.view().items[0].detail)
        await world.runner.say(detail="in line", cause=StartCause.QUEUED)
        await until(lambda: agent.view().items and agent.view().items[0].detail == "in line")
        await anyio.sleep(0.4)
        assert not world.runner.cancelled
        await world.runner.say(detail="let go", cause=StartCause.PREPARING)
        await until(lambda: agent.view().items[0].detail == "let go")
        assert not world.runner.cancelled
        message = await failure(world)
    assert "within 0.2 s (`agent.start_timeout`)" in message


def test_each_cause_but_the_usual_steps_has_a_setting():
    timeouts = timeouts_of(LaunchConfig())
    assert set(timeouts.causes) == set(StartCause) - {StartCause.PREPARING}
    limits = {cause for cause in StartCause if timeouts.wait(cause).seconds}
    assert limits == {StartCause.QUEUED, StartCause.IMAGE, StartCause.CONFIG}


async def test_being_held_back_may_have_a_limit_too():
    world = starting(detail="in line", cause=StartCause.QUEUED)
    world.timeouts = Timeouts(start_seconds=LONG, causes={StartCause.QUEUED: 0.02})
    async with running(world.agent()):
        message = await failure(world)
    assert "(`agent.start_timeouts.queued`); its backend says: in line" in message


@pytest.mark.parametrize("let_go_seconds_ago", [1.0, LONG])
async def test_after_a_restart_the_time_to_start_counts_from_when_a_run_was_let_go(
    let_go_seconds_ago: float,
):
    world = World()
    world.timeouts = Timeouts(start_seconds=LONG / 2, settle_seconds=0.01)
    await adopted(world, launched(2 * LONG))
    world.runner.starting.add(RunId("runq1"))
    world.runner.says = {"detail": "soon", "held_until": time.time() - let_go_seconds_ago}
    async with running(world.agent()) as second:
        if let_go_seconds_ago == LONG:
            await failure(world)
            return
        await until(lambda: second.view().items and second.view().items[0].detail == "soon")
        await anyio.sleep(0.1)
        assert not world.runner.cancelled


def launched(seconds_ago: float, *, clock_jumped: float = 0.0) -> Moment:
    """A launch of this boot; the wall clock jumped since."""
    now = moment_now()
    ago = msgspec.structs.replace(now, monotonic=now.monotonic - seconds_ago)
    return msgspec.structs.replace(ago, unix=now.unix - seconds_ago - clock_jumped)


@pytest.mark.parametrize("jump", [LONG, -LONG])
def test_a_jump_of_the_wall_clock_is_no_time(jump: float):
    assert seconds_since(launched(5.0, clock_jumped=jump)) == pytest.approx(5.0, abs=1.0)


def test_after_a_restart_of_the_machine_the_wall_clock_counts():
    assert seconds_since(Moment(time.time() - 5.0, "earlier", 1.0)) == pytest.approx(5.0, abs=1.0)
    assert seconds_since(moment_at(time.time() + LONG)) == pytest.approx(0.0, abs=1.0)


async def adopted(world: World, moment: Moment) -> None:
    """One running item that an earlier life launched at that moment."""
    world.service.push(an_item())
    async with running(world.agent()) as first:
        await until(lambda: first.view().launched)
    entry = world.journal.kept[ItemId("q-1")]
    world.journal.kept[entry.item.id] = msgspec.structs.replace(entry, launched=moment)


@pytest.mark.parametrize("jump", [LONG, -LONG])
async def test_no_jump_of_the_clock_ends_a_run(jump: float):
    world = World()
    world.timeouts = Timeouts(run_seconds=LONG / 2, start_seconds=LONG / 2, settle_seconds=0.0)
    await adopted(world, launched(1.0, clock_jumped=jump))
    async with running(world.agent()) as second:
        await until(lambda: second.view().items and second.view().items[0].detail == "running")
        await anyio.wait_all_tasks_blocked()
        assert not world.runner.cancelled


async def test_a_run_timeout_counts_on_over_a_restart():
    world = World()
    world.timeouts = Timeouts(run_seconds=LONG, settle_seconds=0.01)
    await adopted(world, launched(LONG + 1))
    async with running(world.agent()):
        await until(lambda: world.service.failed)
    assert world.service.failed[ItemId("q-1")][0].reason is Reason.RUN_TIMEOUT


async def test_an_overdue_run_of_an_earlier_life_gets_time_to_show_its_end():
    world = World()
    world.timeouts = Timeouts(run_seconds=LONG, settle_seconds=LONG)
    await adopted(world, launched(LONG + 1))
    async with running(world.agent()) as second:
        await until(lambda: second.view().items and second.view().items[0].detail == "running")
        await anyio.sleep(0.05)  # a limit that had passed would have ended it by now
        assert not world.runner.cancelled


async def test_an_overdue_run_whose_backend_is_away_is_looked_at_before_it_is_ended():
    world = World()
    world.timeouts = Timeouts(run_seconds=LONG, settle_seconds=0.01)
    await adopted(world, launched(LONG + 1))
    world.runner.plant("watch", *[Unavailable("down")] * 5)
    await world.finish("runq1")
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
    assert second.view().ended == {"succeeded": 1}


async def test_a_stop_while_the_backend_starts_it_ends_what_began_all_the_same():
    world = World()
    item = an_item()
    world.runner.hang_after_create = True
    world.service.push(item)
    async with running(world.agent()) as agent:
        await world.runner.launched.wait()
        world.service.runs[item.run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}
    assert world.runner.cancelled == ["runq1"]
    assert world.runner.removed == ["runq1"]


async def test_a_stop_while_the_backend_only_prepared_it_leaves_nothing_there():
    world = World()
    item = an_item()
    world.runner.hang_after_create = True
    world.runner.prepared.add(item.run_id)
    world.service.push(item)
    async with running(world.agent()) as agent:
        await world.runner.launched.wait()
        world.service.runs[item.run] = RunView(state="pending", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}
    assert world.runner.removed == ["runq1"]
    assert world.builder.discarded == ["q-1"]


@pytest.mark.parametrize("where", ["build slot", "backend"])
async def test_a_stop_is_heard_by_an_item_that_waits(where: str):
    world = World()
    world.patience_seconds = DEADLINE_SECONDS
    item = an_item(3)
    if where == "backend":
        world.runner.plant("check", *[Unavailable("away")] * 10_000)
    else:
        world.builder.hang = True
        world.service.push(an_item(1), an_item(2))
    world.service.push(item)
    async with running(world.agent()) as agent:

        def waits() -> bool:
            words = {one.id: one.detail for one in agent.view().items}
            return ("waiting for " if where == "backend" else "build slot") in words.get("q-3", "")

        await until(waits)
        world.service.runs[item.run] = RunView(state="pending", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}
    assert not world.runner.launches


async def test_an_item_that_is_stopped_before_its_claim_is_claimed_and_ended_as_stopped():
    """Given back with its lease it would only come to the next agent."""
    world = World()
    world.service.plant("ack", *[Unavailable("down")] * 20)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.service.acks)
        table = agent._tools.table
        assert await table.request_stop(next(iter(table)))
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}
    assert not world.runner.launches


async def test_stops_of_a_thousand_runs_are_asked_for_at_once():
    world = World()
    table = Table(world.journal)
    for number in range(1000):
        tracked = table.admit(an_item(number))
        assert tracked is not None
        for phase in (Phase.CLAIMING, Phase.PREPARING, Phase.LAUNCHING, Phase.RUNNING):
            await table.move(tracked, phase)
    asked: list[int] = []
    look_up = world.service.look_up

    async def counted(runs):
        asked.append(len(runs))
        return await look_up(runs)

    world.service.look_up = counted
    world.service.runs[an_item(7).run] = RunView(state="running", stop_requested=True)
    heartbeat = Heartbeat(
        presence=world.service,
        runs=world.service,
        table=table,
        stop=lambda cause: None,
        interval_seconds=LONG,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.run)
        await until(table.get("q-7").stop.is_set)
        tasks.cancel_scope.cancel()
    assert asked == [1000], "the adapter asks for a hundred in each request"


async def test_a_service_that_stops_the_agent_is_like_a_first_sigterm():
    world = World()
    world.service.push(an_item())
    agent = world.agent(grace_seconds=LONG)
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            await until(lambda: agent.view().launched)
            world.service.stop_polling = True
            await until(lambda: agent.view().state == "stopping")
            world.service.push(an_item(2))
            assert world.runner.alive, "its items get the grace"
            agent.stop("SIGTERM")  # a person's first is the second, and skips the grace
    assert world.runner.alive
    assert list(world.runner.orders) == ["runq1"]
    assert world.service.statuses[-1] is AgentStatus.KILLED


async def test_a_run_that_ends_by_itself_is_judged_by_its_own_end():
    world = World()
    world.timeouts = Timeouts(run_seconds=LONG)
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.runner.end("runq1", RunEnd(exit_code=9))
        await until(lambda: world.service.failed)
    assert world.service.failed[ItemId("q-1")][0].reason is Reason.EXIT_CODE


async def test_a_run_that_its_limit_ends_during_the_grace_of_a_stop_failed_by_its_limit():
    world = World()
    world.stop_grace_seconds = LONG
    world.timeouts = Timeouts(run_seconds=0.2)
    item = an_item()
    world.service.push(item)
    world.service.runs[item.run] = RunView(state="running")
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        world.service.runs[item.run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"run_timeout": 1}
