"""The agent among faults: outages in each phase, broken answers, full disks, faults of its own."""

import errno
import time

import anyio
import msgspec
import pytest
from fakes import DEADLINE_SECONDS, KEY, World, an_item, running, until
from structlog.testing import capture_logs

from launch_async.agent.timeouts import Timeouts
from launch_async.domain.errors import AgentUnfit, ItemError, NotBegun, Reason, Unavailable
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.phase import Phase
from launch_async.kit.clock import moment_at
from launch_async.ports.journal import Entry
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio

DOWN = Unavailable("down")
OURS = KeyError("a fault of ours")


async def test_an_adopted_run_that_runs_for_long_is_not_taken_for_one_that_never_started():
    world = World()
    world.timeouts = Timeouts(start_seconds=1.0)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
    entry = world.journal.kept[ItemId("q-1")]
    long_ago = moment_at(time.time() - 3600)
    world.journal.kept[entry.item.id] = msgspec.structs.replace(entry, launched=long_ago)
    world.runner.look_seconds = 0.05
    async with running(world.agent()) as second:
        await until(lambda: second.view().items and second.view().items[0].detail == "running")
        await world.finish("runq1")
        await until(lambda: second.view().ended)
    assert world.runner.cancelled == []
    assert second.view().ended == {"succeeded": 1}


async def test_a_launch_whose_answer_was_lost_is_found_and_not_failed():
    world = World()
    world.runner.lose_answers = 1
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        await world.finish("runq1")
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"succeeded": 1}
    assert world.runner.launches == {"runq1": 1}


async def test_a_run_launched_before_a_crash_is_waited_for_while_the_backend_is_away():
    world = World()
    world.runner.hang_after_create = True
    world.service.push(an_item())
    async with running(world.agent()):
        await world.runner.launched.wait()
    world.runner.hang_after_create = False
    world.runner.plant("find", *[DOWN] * 10)
    async with running(world.agent()) as second:
        await until(lambda: world.journal.kept[ItemId("q-1")].phase is Phase.RUNNING)
        await world.finish("runq1")
        await until(lambda: second.view().ended)
    assert second.view().ended == {"succeeded": 1}
    assert not world.service.failed


async def test_a_backend_that_refuses_for_long_fails_the_item_when_nothing_runs():
    world = World()
    world.runner.errors.extend([DOWN] * 100)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().ended)
    assert world.service.failed[ItemId("q-1")][0].reason is Reason.BACKEND_UNAVAILABLE


async def test_what_has_certainly_not_begun_fails_in_time_though_nobody_can_look():
    world = World()
    world.runner.errors.extend([NotBegun("no right to look")] * 100)
    world.runner.plant("find", *[DOWN] * 1000)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().ended)
    [(outcome, *_)] = world.service.failed.values()
    assert outcome.reason is Reason.BACKEND_UNAVAILABLE
    assert "no right to look" in outcome.message


async def test_what_may_have_begun_is_looked_for_whatever_later_tries_say():
    world = World()
    world.patience_seconds = DEADLINE_SECONDS
    world.runner.errors.extend([DOWN, *[NotBegun("no right to look")] * 2])
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().recovered)
        before = world.runner.finds
        world.service.push(an_item())
        await until(lambda: agent.view().launched)
    assert world.runner.finds - before == 3


@pytest.mark.parametrize("part", ["job", "check"])
async def test_an_outage_before_the_launch_is_waited_out(part: str):
    world = World()
    world.patience_seconds = DEADLINE_SECONDS
    if part == "job":
        world.jobs.faults.extend([DOWN] * 3)
    world.runner.plant(part, *[DOWN] * 3)
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
    assert not world.service.failed


async def test_an_absent_backend_has_no_intent_to_settle():
    world = World()
    world.runner.plant("check", *[DOWN] * 100)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"backend_unavailable": 1}
    assert not world.runner.launches


@pytest.mark.parametrize("verb", ["watch", "cancel"])
@pytest.mark.parametrize("error", [DOWN, OURS, OSError(errno.EMFILE, "too many files")])
async def test_a_broken_watch_is_no_verdict_on_the_run(verb: str, error: Exception):
    world = World()
    item = an_item()
    world.runner.plant(verb, error, error)
    world.service.push(item)
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        stop = verb == "cancel"
        world.service.runs[item.run] = RunView(state="running", stop_requested=stop)
        if not stop:
            await until(lambda: not world.runner.faults["watch"])
            assert world.runner.alive
            await world.finish("runq1")
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped" if stop else "succeeded": 1}


async def test_an_outage_while_a_run_is_stopped_leaves_it_to_be_ended():
    world = World()
    item = an_item()
    world.service.push(item)
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.watches == 1)
        world.runner.plant("watch", DOWN)  # the look that begins with the stop request
        world.service.runs[item.run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert not world.runner.faults["watch"]
    assert world.runner.cancelled == ["runq1"]
    assert agent.view().ended == {"stopped": 1}


@pytest.mark.parametrize("error", [DOWN, OSError(errno.EIO, "bad disk")])
async def test_a_log_that_cannot_be_read_does_not_change_the_verdict(error: Exception):
    world = World()
    world.runner.plant("log_tail", error)
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 3)
        await until(lambda: world.service.failed)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert (outcome.reason, outcome.exit_code) == (Reason.EXIT_CODE, 3)


async def test_keys_in_the_jobs_own_output_are_masked():
    world = World()
    world.runner.tail = (f"WANDB_API_KEY={KEY.reveal()}",)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 3)
        await until(lambda: agent.view().ended)
    outcome, _ = world.service.failed[ItemId("q-1")]
    shown = outcome.message + "".join(outcome.log_tail) + str(world.service.uploads)
    assert "WANDB_API_KEY=***" in shown
    assert KEY.reveal() not in shown


async def test_a_stop_request_that_comes_too_late_brings_no_item_back():
    world = World()
    world.journal.forget_slowly = anyio.Event()
    agent = world.agent()
    world.service.push(an_item())
    async with running(agent):
        await until(lambda: agent.view().launched)
        tracked = next(iter(agent._tools.table))
        await world.finish("runq1")
        await until(lambda: not world.journal.kept)
        await agent._tools.table.request_stop(tracked)
        assert not world.journal.kept


async def test_a_stop_request_ends_a_build():
    world = World()
    item = an_item()
    world.builder.hang = True
    world.service.push(item)
    async with running(world.agent()) as agent:
        await world.builder.building.wait()
        world.service.runs[item.run] = RunView(state="pending", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}
    assert world.builder.discarded == ["q-1"]
    assert not world.runner.launches


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ExceptionGroup("files", [DOWN, ItemError("no", reason=Reason.JOB_INVALID)]),
            "job_invalid",
        ),
        (ExceptionGroup("files", [DOWN, OURS]), "internal"),
        (msgspec.ValidationError("not what we wanted"), "internal"),
    ],
)
async def test_whatever_breaks_before_the_launch_fails_that_item_alone(
    error: Exception, reason: str
):
    world = World()
    world.jobs.faults.append(error)
    world.service.push(an_item(1), an_item(2))
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().ended and world.runner.orders)
    assert agent.view().ended == {reason: 1}
    assert len(world.runner.orders) == 1


@pytest.mark.parametrize("verb", ["ack", "fail", "look_up"])
async def test_a_fault_around_an_item_is_tried_again_and_stops_nothing(verb: str):
    world = World()
    world.service.plant(verb, OURS, ExceptionGroup("several", [OURS]))
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 5)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"exit_code": 1}
    assert world.runner.launches == {"runq1": 1}


async def test_a_broken_answer_of_one_queue_stops_neither_it_nor_the_agent():
    world = World()
    world.service.plant("pop", OURS, TypeError("None is no item"))
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
    assert agent.view().queues[0].polls["error"] == 2


async def test_background_work_that_breaks_begins_again():
    world = World()
    world.runner.plant("serve", OURS, DOWN)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.serves == 3)
        await until(lambda: agent.view().launched)


@pytest.mark.parametrize("error", [DOWN, OURS])
async def test_stops_are_heard_while_the_heartbeat_is_not(error: Exception):
    world = World()
    item = an_item()
    world.service.plant("beat", *[error] * 10_000)
    world.service.push(item)
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        world.service.runs[item.run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}


async def test_the_agent_beats_while_runs_cannot_be_looked_up():
    world = World()
    world.service.plant("look_up", *[OURS] * 10_000)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().launched)
        before = len(world.service.statuses)
        await until(lambda: len(world.service.statuses) > before + 3)


@pytest.mark.parametrize("phase", [Phase.CLAIMING, Phase.LAUNCHING, Phase.RUNNING])
async def test_a_full_disk_ends_the_agent_in_order_and_the_next_life_goes_on(phase: Phase):
    world = World()
    world.journal.full_from = phase
    world.service.push(an_item(), an_item(2))
    with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(AgentUnfit, match="disk is full"):
        await world.agent(grace_seconds=3600.0).run()
    world.journal.full_from = None
    if phase is Phase.CLAIMING:  # never acked: its lease lapses and it comes again
        assert not world.service.acks
        world.service.push(an_item(), an_item(2))
    async with running(world.agent()) as second:
        await until(lambda: world.runner.orders)
        for run_id in list(world.runner.orders):
            await world.finish(run_id)
        await until(lambda: second.view().ended)
    assert set(world.runner.launches.values()) == {1}
    assert not world.service.failed


async def test_a_disk_without_room_for_a_build_fails_no_item():
    world = World()
    world.jobs.faults.append(OSError(errno.ENOSPC, "No space left on device", "/state"))
    world.service.push(an_item())
    with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(AgentUnfit, match="free space"):
        await world.agent().run()
    assert not world.service.failed
    assert world.journal.kept[ItemId("q-1")].phase is Phase.PREPARING


async def test_a_revoked_key_ends_the_agent_even_when_the_last_word_is_refused():
    world = World()
    refused = AgentUnfit("the key was refused")
    agent = world.agent()
    world.service.plant("beat", *[refused] * 10)
    with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(AgentUnfit, match="key"):
        await agent.run()


async def test_a_key_refused_inside_a_journey_ends_the_agent_and_keeps_the_item():
    world = World()
    world.runner.plant("watch", AgentUnfit("the key was refused"))
    world.service.push(an_item())
    with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(AgentUnfit, match="key"):
        await world.agent().run()
    assert world.journal.kept[ItemId("q-1")].phase is Phase.RUNNING


async def test_a_journal_that_cannot_be_read_is_named_as_such():
    world = World()

    async def torn() -> list[Entry]:
        raise AgentUnfit("the journal is torn")

    world.journal.entries = torn
    with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(AgentUnfit, match="torn"):
        await world.agent().run()


async def test_a_stop_does_not_wait_for_a_service_that_hangs_at_registration():
    world = World()

    async def hang() -> str:
        await anyio.sleep_forever()
        return ""

    world.service.register = hang
    agent = world.agent()
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            await anyio.wait_all_tasks_blocked()
            agent.stop("SIGTERM")


async def test_an_agent_that_waits_for_the_service_says_so_before_the_first_error():
    world = World()

    async def hang() -> str:
        await anyio.sleep_forever()
        return ""

    world.service.register = hang
    with capture_logs() as logs:
        async with running(world.agent()):
            await until(lambda: [one for one in logs if one["event"] == "waiting for the service"])
    [said] = [one for one in logs if one["event"] == "waiting for the service"]
    assert said["address"] == "http://h"


async def test_leftovers_are_removed_when_the_backend_is_back():
    world = World()
    world.runner.plant("remove", DOWN, DOWN)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        await world.finish("runq1")
        await until(lambda: agent.view().ended)
    assert world.runner.removed == ["runq1"]


async def test_the_same_run_id_in_another_project_waits_too():
    world = World()
    first = an_item(1)
    second = msgspec.structs.replace(an_item(2, project="other"), run_id=first.run_id)
    world.service.push(first, second)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().ended == {"let_go": 1} and world.runner.launches)
        assert world.runner.launches == {RunId("runq1"): 1}
