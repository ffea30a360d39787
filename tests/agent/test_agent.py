"""The agent against fakes: what it promises about items, limits, stops and crashes."""

from collections import deque
from collections.abc import Iterable

import anyio
import msgspec
import pytest
from fakes import DEADLINE_SECONDS, World, an_item, queue_ref, running, until

from launch_async.agent.agent import Agent
from launch_async.agent.timeouts import Timeouts
from launch_async.domain.errors import AgentUnfit, ItemError, Reason, Unavailable
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.phase import Phase
from launch_async.domain.spec import Overrides
from launch_async.ports.presence import AgentStatus
from launch_async.ports.queue import RejectedItem
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio


async def test_a_run_that_ends_well_is_not_reported_as_failed():
    world = World()
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        await world.finish("runq1")
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"succeeded": 1}
    assert world.service.acks == [("q-1", "runq1")]
    assert not world.service.failed
    assert world.runner.removed == ["runq1"]
    assert not world.journal.kept


async def test_exit_0_without_a_run_is_failed_with_that_reason():
    world = World()
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.finish("runq1", with_run=False)
        await until(lambda: world.service.failed)
    outcome, files = world.service.failed[ItemId("q-1")]
    assert outcome.reason is Reason.NO_RUN
    assert "never called wandb.init" in outcome.message
    assert files == ["q-1/error/error.log", "q-1/bundle.json"]


@pytest.mark.parametrize("with_run", [True, False])
async def test_exit_3_is_failed_with_code_and_last_lines(with_run: bool):
    world = World()
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 3, with_run=with_run)
        await until(lambda: world.service.failed)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert (outcome.reason, outcome.exit_code) == (Reason.EXIT_CODE, 3)
    assert "exited with code 3" in outcome.message
    assert outcome.message.endswith("last line")
    error_file = world.service.uploads["q-1/error/error.log"].decode()
    assert "exit code: 3" in error_file
    assert "first\nlast line" in error_file


async def test_a_lost_claim_is_let_go_without_a_word():
    world = World()
    world.service.push(an_item())
    world.service.refused_acks.add(ItemId("q-1"))
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"let_go": 1}
    assert not world.runner.orders
    assert not world.service.failed


async def test_an_ack_without_an_answer_is_repeated_with_the_same_run_id():
    world = World()
    world.service.plant("ack", Unavailable("lost"), Unavailable("lost"))
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
    assert world.service.acks == [("q-1", "runq1")] * 3


async def test_what_the_queue_cannot_say_clearly_is_failed_and_polling_goes_on():
    world = World()
    rejected = RejectedItem(id=ItemId("bad"), queue=queue_ref(), message="no project")
    world.service.pending["q"] = deque([rejected, an_item(2)])
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
    assert world.service.failed[ItemId("bad")][0].reason is Reason.SPEC_INVALID


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ItemError("no such job", reason=Reason.JOB_NOT_FOUND), Reason.JOB_NOT_FOUND),
        (Unavailable("artifacts are down"), Reason.BACKEND_UNAVAILABLE),
        (ValueError("a fault of ours"), Reason.INTERNAL),
    ],
)
async def test_an_item_that_cannot_be_prepared_is_failed_alone(error: Exception, reason: Reason):
    world = World()
    world.jobs.errors["me/p/bad:latest"] = error  # type: ignore[assignment]
    world.service.push(an_item(1, job="me/p/bad:latest"), an_item(2))
    async with running(world.agent()):
        await until(lambda: world.runner.orders and world.service.failed)
    assert world.service.failed[ItemId("q-1")][0].reason is reason
    assert list(world.runner.orders) == ["runq2"]


async def test_a_resource_that_is_not_served_is_named():
    world = World()
    world.service.push(an_item(resource="slurm"))
    async with running(world.agent()):
        await until(lambda: world.service.failed)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert "cannot run the resource 'slurm'; it serves fake" in outcome.message


async def test_a_failure_is_reported_when_the_service_is_back():
    world = World()
    outage = [Unavailable("down")] * 5
    world.service.plant("fail", *outage)
    world.service.plant("upload", Unavailable("down"))
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 1)
        await until(lambda: agent.view().ended)
    assert world.service.failed[ItemId("q-1")][1] == ["q-1/error/error.log", "q-1/bundle.json"]


async def test_no_limit_is_ever_exceeded_and_every_queue_stays_busy():
    world = World()
    limits = {"a": 1, "b": 2}
    for name in limits:
        world.service.push(*(an_item(number, name) for number in range(10)))
    left = dict.fromkeys(limits, 10)
    async with running(world.agent(limits=limits)) as agent:
        while any(left.values()):
            wanted = {name: min(limit, left[name]) for name, limit in limits.items()}
            await until(lambda wanted=wanted: alive_by_queue(world, limits) == wanted)
            items = {queue.name: queue.items for queue in agent.view().queues}
            assert all(items[name] <= limit for name, limit in limits.items())
            run = world.runner.alive[-1]
            left[run.queue.name] -= 1
            await world.finish(run.run.run_id)
        await until(lambda: agent.view().ended == {"succeeded": 20})


def alive_by_queue(world: World, queues: Iterable[str]) -> dict[str, int]:
    alive = [order.queue.name for order in world.runner.alive]
    return {name: alive.count(name) for name in queues}


async def test_the_agents_own_limit_holds_over_all_queues():
    world = World()
    for name in "abc":
        world.service.push(*(an_item(number, name) for number in range(3)))
    async with running(world.agent(limits=dict.fromkeys("abc", -1), max_jobs=2)) as agent:
        for ended in range(1, 10):
            await until(lambda: world.runner.alive)
            assert len(agent.view().items) <= 2
            await world.finish(world.runner.alive[0].run.run_id)
            await until(lambda ended=ended: sum(agent.view().ended.values()) >= ended)
    assert agent.view().ended == {"succeeded": 9}


async def test_a_stop_waits_for_running_items_and_takes_no_new_ones():
    world = World()
    world.service.push(an_item(1))
    agent = world.agent()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.run)
        await until(lambda: world.runner.orders)
        agent.stop("SIGTERM")
        world.service.push(an_item(2))
        await until(lambda: agent.view().state == "stopping")
        await world.finish("runq1")
    assert agent.view().ended == {"succeeded": 1}
    assert list(world.runner.orders) == ["runq1"]
    assert world.service.statuses[-1] is AgentStatus.KILLED


async def test_after_the_grace_items_are_let_go_and_the_next_life_adopts_them():
    world = World()
    world.service.push(an_item())
    agent = world.agent(grace_seconds=0.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.run)
        await until(lambda: agent.view().launched)
        agent.stop("SIGTERM")
    assert world.runner.alive
    assert world.journal.kept[ItemId("q-1")].phase is Phase.RUNNING
    async with running(world.agent()) as second:
        await world.finish("runq1")
        await until(lambda: second.view().ended)
    assert second.view().adopted == 1
    assert second.view().ended == {"succeeded": 1}
    assert world.runner.launches == {"runq1": 1}


async def test_a_second_stop_skips_the_grace():
    world = World()
    world.service.push(an_item())
    agent = world.agent(grace_seconds=3600.0)
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            await until(lambda: agent.view().launched)
            agent.stop("SIGTERM")
            agent.stop("SIGTERM")
    assert world.runner.alive


async def test_a_crash_after_the_create_was_sent_launches_nothing_twice():
    world = World()
    world.runner.hang_after_create = True
    world.service.push(an_item())
    async with running(world.agent()):
        await world.runner.launched.wait()
    assert world.journal.kept[ItemId("q-1")].phase is Phase.LAUNCHING
    world.runner.hang_after_create = False
    async with running(world.agent()) as second:
        await until(lambda: second.view().items)
        await world.finish("runq1", 3)
        await until(lambda: second.view().ended)
    assert world.runner.launches == {"runq1": 1}
    assert len(world.service.acks) == 1
    assert world.service.failed[ItemId("q-1")][0].exit_code == 3


async def test_a_crash_before_the_report_tells_it_once_in_the_next_life():
    world = World()
    world.service.plant("fail", *[Unavailable("down")] * 1000)
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.runner.orders)
        await world.finish("runq1", 4)
        await until(lambda: world.journal.kept[ItemId("q-1")].phase is Phase.REPORTING)
    world.service.faults.clear()
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
    assert world.service.failed[ItemId("q-1")][0].exit_code == 4
    assert not world.journal.kept


async def test_a_stop_request_ends_the_run_after_its_grace():
    world = World()
    item = an_item()
    world.service.push(item)
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
        world.service.runs[item.run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert world.runner.cancelled == ["runq1"]
    assert agent.view().ended == {"stopped": 1}


async def test_a_run_that_never_starts_is_ended_and_named():
    world = World()
    world.timeouts = Timeouts(start_seconds=0.02)
    world.runner.starting.add(RunId("runq1"))
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.service.failed)
    outcome, _ = world.service.failed[ItemId("q-1")]
    assert outcome.reason is Reason.START_TIMEOUT
    assert world.runner.cancelled == ["runq1"]


async def test_the_service_can_stop_the_agent():
    world = World()
    agent = world.agent()
    world.service.stop_polling = True
    with anyio.fail_after(DEADLINE_SECONDS):
        await agent.run()
    assert world.service.statuses[-1] is AgentStatus.KILLED


async def test_a_refused_key_ends_the_agent_and_loses_nothing():
    world = World()
    world.service.push(an_item())
    agent = world.agent(grace_seconds=3600.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_plant_unfit, world, agent)
        with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(AgentUnfit, match="key"):
            await agent.run()
    assert world.journal.kept[ItemId("q-1")].phase is Phase.RUNNING


async def _plant_unfit(world: World, agent: Agent) -> None:
    await until(lambda: agent.view().launched)
    world.service.plant("pop", AgentUnfit("the key was refused"))


async def test_an_outage_of_one_queue_is_waited_out():
    world = World()
    world.service.plant("pop", *[Unavailable("sick")] * 3)
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: world.runner.orders)
    assert agent.view().queues[0].polls["error"] == 3


async def test_an_item_that_was_never_launched_leaves_nothing_prepared():
    world = World()
    world.runner.errors.append(ItemError("no such image", reason=Reason.IMAGE_NOT_FOUND))
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().ended)
    assert world.builder.discarded == ["q-1"]
    assert not world.runner.removed


async def test_a_run_id_that_is_in_use_goes_back_unclaimed():
    world = World()
    first = an_item(1)
    second = msgspec.structs.replace(an_item(2), run_id=first.run_id)
    world.service.push(first, second)
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().ended)
        assert agent.view().ended == {"let_go": 1}
        assert [item for item, _ in world.service.acks] == ["q-1"]
        assert not world.service.failed


async def test_secure_mode_refuses_another_entry_point_and_the_builder_block_is_not_for_runners():
    world = World()
    world.secure_mode = True
    other = Overrides(entry_point=("sh",))
    world.service.push(
        an_item(1, overrides=other), an_item(2, resource_args={"builder": {}, "x": 1})
    )
    async with running(world.agent()):
        await until(lambda: world.service.failed and world.runner.orders)
    assert "secure_mode" in world.service.failed[ItemId("q-1")][0].message
    assert world.runner.orders[RunId("runq2")].resource_args == {"x": 1}
