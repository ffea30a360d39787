"""Ends that are told in order whatever happens, bundles, warnings, and items queued again."""

from collections.abc import Sequence

import anyio
import msgspec
import pytest
from fakes import DEADLINE_SECONDS, KEY, World, an_item, running, until
from structlog.testing import capture_logs

from launch_async.agent.report_line import TRIES, WIDTH, ReportLine
from launch_async.agent.warnings import MAX_PER_ITEM, Warnings
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.ids import ItemId
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunEnd
from launch_async.domain.secret import Secret
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio

DOWN = Unavailable("down")
PREEMPTED = RunEnd(exit_code=None, reason=Reason.PREEMPTED, detail="spot machine reclaimed")
FILES = ["q-1/error/error.log", "q-1/bundle.json"]


class Telling:
    """Reports that come to a line; the service hears none of `deaf` and while it is `down`."""

    def __init__(self) -> None:
        self.line = ReportLine()
        self.told: list[float] = []
        self.tried: list[float] = []
        self.down = False
        self.deaf: set[float] = set()
        self.at_once = 0
        self.most_at_once = 0

    async def tell(self, ended_at: float) -> None:
        async def attempt() -> None:
            self.tried.append(ended_at)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await anyio.lowlevel.checkpoint()
            self.at_once -= 1
            if self.down or ended_at in self.deaf:
                raise DOWN
            self.told.append(ended_at)

        async def rest(error: Unavailable) -> None:
            await anyio.sleep(0.001)

        await self.line.tell(attempt, ended_at=ended_at, rest=rest)


async def test_after_an_outage_ends_are_told_oldest_first_and_one_tries_at_a_time():
    telling = Telling()
    telling.down = True
    ends: Sequence[float] = [5, 1, 4, 2, 3, *range(6, 40)]
    async with anyio.create_task_group() as tasks:
        for ended_at in ends:
            tasks.start_soon(telling.tell, float(ended_at))
        await until(lambda: len(telling.tried) > WIDTH + 5 * TRIES)
        seen = len(telling.tried)
        telling.most_at_once = 0
        await until(lambda: len(telling.tried) > seen + 2)
        assert telling.most_at_once == 1
        telling.down = False
    first, *others = telling.told
    assert others == sorted(set(map(float, ends)) - {first}), "but for whoever tried just then"


async def test_a_report_that_the_service_never_takes_holds_up_no_other():
    telling = Telling()
    telling.deaf = {0.0}
    async with anyio.create_task_group() as tasks:
        for ended_at in range(30):
            tasks.start_soon(telling.tell, float(ended_at))
        await until(lambda: len(telling.told) == 29)
        tasks.cancel_scope.cancel()
    assert telling.tried.count(0.0) <= 3 * TRIES


async def test_a_report_that_is_cancelled_gives_its_place_back():
    telling = Telling()
    telling.down = True
    async with anyio.create_task_group() as tasks:
        for ended_at in range(3 * WIDTH):
            tasks.start_soon(telling.tell, float(ended_at))
        await until(lambda: len(telling.tried) > WIDTH)
        tasks.cancel_scope.cancel()
    telling.down = False
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            for ended_at in range(3 * WIDTH):
                tasks.start_soon(telling.tell, 100.0 + ended_at)
    assert len(telling.told) == 3 * WIDTH


async def test_an_item_whose_report_waits_holds_no_slot():
    world = World()
    world.service.plant("fail", *[DOWN] * 10_000)
    world.service.push(*(an_item(number) for number in range(1, 6)))
    async with running(world.agent(max_jobs=1)) as agent:
        for number in range(1, 6):
            await until(lambda number=number: f"runq{number}" in world.runner.orders)
            await world.finish(f"runq{number}", 1)
        await until(lambda: len(agent.view().items) == 5)
        assert not world.service.failed
        world.service.faults.clear()
        await until(lambda: agent.view().ended == {"exit_code": 5})
    told = list(world.service.failed)
    assert told[1:] == sorted(told[1:])


async def test_reports_that_wait_survive_a_restart_and_are_told_once_with_their_files():
    world = World()
    world.service.plant("fail", *[DOWN] * 10_000)
    world.service.plant("upload", *[DOWN] * 10_000)
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 4)
        await until(lambda: world.journal.kept[ItemId("q-1")].phase is Phase.REPORTING)
    ended_at = world.journal.kept[ItemId("q-1")].events[-1].at
    async with running(world.agent()):
        await until(lambda: len(world.service.faults["upload"]) < 9990)
    world.service.faults.clear()
    async with running(world.agent()) as third:
        await until(lambda: third.view().ended)
    outcome, files = world.service.failed[ItemId("q-1")]
    assert (outcome.exit_code, files) == (4, FILES)
    events = msgspec.json.decode(world.service.uploads["q-1/bundle.json"])["events"]
    assert [(event["at"], event["what"]) for event in events][-1] == (ended_at, "reporting")


async def test_a_bundle_says_what_happened_and_holds_no_key():
    world = World()
    own = Secret("o" * 40)
    world.runner.tail = (f"agent {KEY.reveal()}", f"own {own.reveal()}", "boom")
    world.runner.says = {}
    world.service.push(an_item(api_key=own))
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        await world.runner.end("runq1", RunEnd(exit_code=None, signal=9, reason=Reason.KILLED))
        await until(lambda: agent.view().ended)
    kept = world.bundles.kept[ItemId("q-1")]
    assert {f"q-1/{path}": content for path, content in kept.items()} == world.service.uploads
    bundle = msgspec.json.decode(kept["bundle.json"])
    assert bundle["reason"] == "killed"
    assert bundle["signal"] == 9
    assert bundle["backend"] == {"name": "fake"}
    assert bundle["run"] == "me/p/runq1"
    whats = [event["what"] for event in bundle["events"]]
    assert whats == ["claiming", "preparing", "launching", "running", "reporting"]
    assert set(bundle["seconds"]) == set(whats[:-1])
    assert "agent ***\nown ***\nboom" in kept["error/error.log"].decode()
    shown = str(kept) + world.service.failed[ItemId("q-1")][0].message
    assert KEY.reveal() not in shown
    assert own.reveal() not in shown


async def test_a_bundle_that_cannot_be_kept_here_is_uploaded_all_the_same():
    world = World()

    async def full(item_id, files):
        raise OSError(28, "No space left on device")

    world.bundles.keep = full
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 1)
        await until(lambda: world.service.failed)
    assert world.service.failed[ItemId("q-1")][1] == FILES


async def test_an_agent_that_may_not_upload_reports_without_files():
    world = World()
    world.upload_seconds = 0.05
    world.service.plant("upload", *[DOWN] * 10_000)
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 1)
        await until(lambda: world.service.failed)
    assert world.service.failed[ItemId("q-1")][1] == []


async def preempt(world: World, *, resume_count: int = 0) -> None:
    world.service.push(an_item(resume_count=resume_count))
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        await world.runner.end("runq1", PREEMPTED)
        await until(lambda: agent.view().ended)
    assert not world.journal.kept


async def test_a_preempted_item_is_queued_again_once_its_leftovers_are_gone():
    world = World()
    removed_before: list[str] = []
    requeue = world.requeues.requeue

    async def watched(item, outcome, *, files):
        removed_before.extend(world.runner.removed)
        assert files == FILES
        assert "spot machine reclaimed" in outcome.message
        assert "(3 of 5)" in outcome.message
        await requeue(item, outcome, files=files)

    world.requeues.requeue = watched
    await preempt(world, resume_count=2)
    assert world.requeues.queued == {"q-1": 3}
    assert removed_before == ["runq1"]
    assert not world.service.failed


async def test_a_run_that_is_preempted_too_often_fails_its_item():
    world = World()
    await preempt(world, resume_count=5)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert outcome.reason is Reason.PREEMPTED
    assert "`agent.item_retries`" in outcome.message
    assert not world.requeues.pushes


async def test_a_preempted_run_that_was_stopped_or_had_finished_is_not_queued_again():
    for view in (
        RunView(state="running", stop_requested=True),
        RunView(state="finished"),
    ):
        world = World()
        world.stop_grace_seconds = 3600.0
        item = an_item()
        world.service.push(item)
        async with running(world.agent()) as agent:
            await until(lambda world=world: world.runner.orders)
            world.service.runs[item.run] = view
            tracked = next(iter(agent._tools.table))
            if view.stop_requested:
                await tracked.stop.wait()
            await world.runner.end("runq1", PREEMPTED)
            await until(lambda agent=agent: agent.view().ended)
        assert not world.requeues.pushes
        assert not world.service.failed


@pytest.mark.parametrize("lost", ["requeue", "requeue answer"])
async def test_where_a_repeat_does_no_harm_a_requeue_is_repeated(lost: str):
    world = World()
    world.service.plant(lost, DOWN, DOWN)
    await preempt(world)
    assert world.requeues.queued == {"q-1": 1}
    assert not world.service.failed


async def test_where_a_repeat_would_queue_it_twice_a_lost_answer_is_said_and_not_repeated():
    world = World()
    world.requeues.is_repeatable = False
    world.service.plant("requeue answer", DOWN)
    world.service.plant("fail", *[DOWN] * 3)
    await preempt(world)
    assert world.requeues.pushes == 1
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert "not known, for the answer was lost: look for the run runq1" in outcome.message


@pytest.mark.parametrize("repeatable", [True, False])
async def test_an_outage_before_the_requeue_is_waited_out(repeatable: bool):
    world = World()
    world.requeues.is_repeatable = repeatable
    world.service.plant("repeatable", *[DOWN] * 3)
    await preempt(world)
    assert world.requeues.pushes == 1
    assert not world.service.failed


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_crash_while_it_is_queued_again_neither_loses_nor_doubles_it(repeatable: bool):
    world = World()
    world.requeues.is_repeatable = repeatable
    asked, hang = anyio.Event(), world.requeues.requeue

    async def cut_off(item, outcome, *, files):
        await hang(item, outcome, files=files)
        asked.set()
        await anyio.sleep_forever()

    world.requeues.requeue = cut_off
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.runner.end("runq1", PREEMPTED)
        await asked.wait()
    world.requeues.requeue = hang
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
    assert world.requeues.queued == {"q-1": 1}
    assert world.requeues.pushes == (2 if repeatable else 1)
    assert bool(world.service.failed) is not repeatable


async def test_a_refused_requeue_fails_the_item_with_the_services_words():
    world = World()
    world.requeues.refusal = ItemError("only one that failed", reason=Reason.PREEMPTED)
    await preempt(world)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert outcome.message.endswith("It was not queued again: only one that failed")


async def test_the_same_run_may_come_back_while_its_first_report_waits():
    world = World()
    world.service.plant("repeatable", *[DOWN] * 10_000)
    world.service.push(an_item())
    async with running(world.agent(max_jobs=1)) as agent:
        await until(lambda: world.runner.orders)
        await world.runner.end("runq1", PREEMPTED)
        await until(lambda: world.runner.removed)
        again = msgspec.structs.replace(an_item(2, resume_count=1), run_id=an_item().run_id)
        world.service.push(again)
        await until(lambda: len(world.service.acks) == 2)
    assert not agent.view().ended, "it was not let go"


async def test_warnings_are_told_once_and_hold_nobody_up():
    world = World()
    world.service.plant("warn", *[DOWN] * 3)
    world.builder.warnings = (f"no torch {KEY.reveal()}", "no wandb")
    world.runner.starting.add(an_item().run_id)
    world.runner.says = {"warning": "no wandb"}
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: len(world.service.warned) == 2)
        await anyio.wait_all_tasks_blocked()
    assert world.service.warned == [("q-1", "no torch ***"), ("q-1", "no wandb")]


async def test_an_item_has_a_bounded_number_of_warnings():
    world = World()
    agent = world.agent()
    tracked = agent._tools.table.admit(an_item())
    assert tracked is not None
    warnings = Warnings(world.service, agent_key=KEY, retry_seconds=0.01)
    for number in range(100):
        warnings.add(tracked, f"warning {number}" + "x" * 10_000)
    assert len(tracked.warnings) == MAX_PER_ITEM
    assert max(map(len, tracked.warnings)) <= 2000


async def test_no_message_holds_a_key():
    world = World()
    error = ItemError(f"git refused {KEY.reveal()}", reason=Reason.SOURCE_UNAVAILABLE)
    world.jobs.errors["me/p/j:latest"] = error
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.service.failed)
    assert world.service.failed[ItemId("q-1")][0].message == "git refused ***"
    assert KEY.reveal() not in str(world.bundles.kept)


async def test_the_log_names_the_failure_and_leaves_out_what_the_run_printed():
    world = World()
    world.service.push(an_item(1))
    with capture_logs() as logs:
        async with running(world.agent()) as agent:
            await until(lambda: world.runner.orders)
            await world.finish("runq1", exit_code=7)
            await until(lambda: agent.view().ended)
    failed = [line for line in logs if line["event"] == "item failed"]
    assert [line["message"] for line in failed] == ["the job exited with code 7"]
