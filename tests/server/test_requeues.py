"""Items that are put into their queue once more."""

from typing import Any

import anyio
import pytest
from launch_harness import REQUEUE, Launch, spec
from server_harness import Http, Server

from launch_async.server.ids import decode_number
from launch_async.server.items import load_item
from launch_async.server.queueing import requeue
from launch_async.server.run_specs import again

pytestmark = pytest.mark.anyio

EXTRA = {"_wandb_api_key", "run_id", "_resume_count"}


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def ended(launch: Launch, run: str = "r1", **more: Any) -> str:
    """Push, pop, ack and fail an item of queue q."""
    await launch.queue(mode=more.pop("mode", None))
    item = await launch.push(**more)
    await launch.popped_id()
    assert await launch.ack(item, run)
    await launch.fail(item)
    return item


def plain(run_spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run_spec.items() if key not in EXTRA}


async def test_a_requeued_item_is_a_new_one_with_the_same_spec(launch: Launch) -> None:
    own = {"local-process": {"cpus": 2}}
    item = await ended(launch, spec=spec(resource_args=own, run_id="r1"))
    before = await launch.item(item)
    new = await launch.requeue(item)
    shown = await launch.item(new)
    assert new != item
    assert (shown["state"], shown["requeuedFrom"], shown["message"]) == ("PENDING", item, None)
    assert shown["runSpec"] == plain(before["runSpec"]), "it becomes a run of its own"
    assert shown["ownResourceArgs"] == own
    assert await launch.item(item) == before
    popped = await launch.pop()
    assert popped is not None
    assert popped["runSpec"]["_wandb_api_key"]
    assert plain(popped["runSpec"]) == shown["runSpec"]


async def test_a_requeued_item_may_resume_its_run(launch: Launch, http: Http) -> None:
    item = await ended(launch)
    new = await launch.requeue(item, keep=True)
    popped = await launch.pop()
    assert popped is not None
    assert popped["runSpec"]["run_id"] == "r1"
    assert popped["runSpec"]["_resume_count"] == 1, "what agents allow a resume by"
    assert await launch.ack(new, "r1", popped["lease"])
    await http.stream("r1", {}, project="target")
    assert (await launch.state(item), await launch.state(new)) == ("FAILED", "RUNNING")


RESUME = """mutation Resume($item: ID!, $count: Int!) {
  requeueRunQueueItem(input: {runQueueItemId: $item, resumeCount: $count}) { runQueueItemId } }"""


async def test_a_preempted_run_goes_on_once_with_its_priority_and_its_count(
    launch: Launch, http: Http
) -> None:
    item = await ended(launch, mode="V0", priority=0, spec=spec(sweep_id="s"))
    first = await http.data(RESUME, item=item, count=3)
    popped = await launch.pop()
    assert popped is not None
    assert popped["runSpec"]["run_id"] == "r1"
    assert popped["runSpec"]["_resume_count"] == 3
    assert "sweep_id" not in popped["runSpec"]
    new = first["requeueRunQueueItem"]["runQueueItemId"]
    assert (await launch.item(new))["priority"] == 0
    assert await launch.ack(new, "r1", popped["lease"])
    await launch.fail(new)
    assert await http.data(RESUME, item=item, count=3) == first, "though that one has ended"
    assert await launch.pop() is None


async def test_what_somebody_stopped_is_not_resumed_by_its_agent(
    launch: Launch, http: Http
) -> None:
    item = await launch.claimed()
    await launch.cancel(item)
    await launch.fail(item)
    refused = await http.ask(RESUME, item=item, count=1)
    assert "is STOPPED; only one that failed is resumed" in str(refused.json())
    assert await launch.pop() is None


async def test_a_resumed_run_is_not_stopped_by_the_cancel_of_its_first_life(
    launch: Launch, http: Http
) -> None:
    item = await launch.claimed()
    await http.stream("r1", {}, project="target")
    await launch.cancel(item)
    await http.stream("r1", {"complete": True, "exitcode": 255}, project="target")
    new = await launch.requeue(item, keep=True)
    assert await launch.ack(new, "r1", await launch.lease())
    (run,) = await http.server.rows("select stop_requested from runs")
    assert not run.stop_requested, "its agent would stop it at once"
    await http.stream("r1", {}, project="target")
    await http.stream("r1", {"complete": True, "exitcode": 1}, project="target")
    assert await launch.state(new) == "FAILED"


async def test_a_repeat_finds_the_requeued_item_until_it_ends(launch: Launch) -> None:
    item = await ended(launch)
    new = await launch.requeue(item)
    assert await launch.requeue(item) == new
    await launch.popped_id()
    assert await launch.requeue(item, keep=True) == new
    await launch.cancel(new)
    assert await launch.requeue(item) not in {item, new}


async def test_repeats_at_once_make_one_item(server: Server, launch: Launch) -> None:
    item = decode_number(await ended(launch), "RunQueueItem")
    request, made = server.request(), []

    async def again_now() -> None:
        async with request.store.write() as connection:
            row = await load_item(connection, item)
            assert row is not None
            made.append(await requeue(connection, request, row, keep_run=False))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(again_now)
    assert len(set(made)) == 1


async def test_only_what_has_ended_is_requeued(launch: Launch) -> None:
    await launch.queue()
    item = await launch.push()
    for state in ("PENDING", "LEASED", "CLAIMED"):
        reply = await launch.http.ask(REQUEUE, item=item)
        assert reply.status == 409
        message = reply.json()["errors"][0]["message"]
        assert state in message
        assert "cancelRunQueueItem" in message
        if state == "PENDING":
            await launch.popped_id()
        else:
            await launch.ack(item, "r1")
    assert (await launch.http.ask(REQUEUE, item="nonsense")).status == 404


async def test_a_requeued_item_is_the_last_of_its_priority(launch: Launch) -> None:
    item = await ended(launch, mode="V0", priority=1)
    others = [await launch.push(priority=number) for number in (3, 1, 0)]
    new = await launch.requeue(item)
    low, high, critical = others
    assert [await launch.popped_id() for _ in range(4)] == [critical, high, new, low]


async def test_a_requeue_takes_no_priority_into_a_queue_without(launch: Launch) -> None:
    item = await ended(launch, mode="V0", priority=0)
    await launch.queue(mode="DISABLED")
    first = await launch.push()
    new = await launch.requeue(item)
    assert [await launch.popped_id() for _ in range(2)] == [first, new]


async def test_an_item_that_never_ran_is_requeued(launch: Launch) -> None:
    await launch.queue()
    item = await launch.push(spec=spec(run_id="mine"))
    await launch.cancel(item)
    new = await launch.requeue(item, keep=True)
    assert (await launch.item(new))["runSpec"]["run_id"] == "mine"


def test_a_run_that_was_resumed_before_is_not_counted_again() -> None:
    once = again({"job": "j"}, run_id="r1")
    assert once == {"job": "j", "run_id": "r1", "_resume_count": 1}
    assert again(once, run_id="r1") == once, "W&B's agent gives up at 5"
    assert again(once, run_id=None) == {"job": "j"}
