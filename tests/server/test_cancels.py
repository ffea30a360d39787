"""Items taken back: what waits ends at once, what an agent has is asked to stop."""

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from launch_harness import CANCEL, CANCEL_ALL, Launch, spec
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.cancels import cancel_item, end_abandoned
from launch_async.server.ids import decode_number, encode_id, encode_run_id
from launch_async.server.items import load_item
from launch_async.server.leases import pop

pytestmark = pytest.mark.anyio

RUN_ID = encode_run_id("r1", "target", "tester")
STOPPED = """query($entity: String!, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) { stopped state } } }"""


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def run(http: Http, name: str = "r1") -> Any:
    data = await http.data(STOPPED, entity="tester", project="target", run=name)
    return data["project"]["run"]


async def stream(http: Http, name: str = "r1", **body: Any) -> Any:
    reply = await http.stream(name, body, project="target")
    assert reply.status == 200, reply.body
    return reply.json()


async def test_what_waits_ends_at_once_and_is_not_popped(launch: Launch) -> None:
    await launch.queue()
    item, other = await launch.push(), await launch.push()
    for _ in range(2):
        assert await launch.cancel(item) == (True, "STOPPED")
    assert (await launch.item(item))["endedAt"] is not None
    assert [await launch.popped_id() for _ in range(2)] == [other, None]


@pytest.mark.parametrize("lapsed", [False, True])
async def test_the_agent_of_a_cancelled_lease_can_do_nothing(launch: Launch, lapsed: bool) -> None:
    await launch.queue()
    item = await launch.push()
    lease = await launch.lease()
    if lapsed:
        await launch.lapse(item)
    assert await launch.cancel(item) == (True, "STOPPED")
    before = await launch.item(item)
    for held in (lease, None):
        assert not await launch.ack(item, "r1", held)
        await launch.fail(item, lease=held)
    assert await launch.item(item) == before
    assert await launch.pop() is None


async def test_a_claimed_item_hears_of_its_cancel_by_its_run(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    for _ in range(2):
        assert await launch.cancel(item) == (True, "CLAIMED")
    assert (await launch.item(item))["stopRequested"] is True
    assert await run(http) == {"stopped": True, "state": "pending"}, "its agent hears it"
    assert (await stream(http))["stopped"] is True, "its process hears it"
    assert await launch.cancel(item) == (True, "RUNNING")
    await stream(http, complete=True, exitcode=255)
    assert await launch.state(item) == "STOPPED"
    assert await launch.cancel(item) == (True, "STOPPED")


async def test_a_cancelled_item_that_its_agent_fails_was_stopped(
    launch: Launch, http: Http
) -> None:
    item = await launch.claimed()
    await launch.cancel(item)
    await launch.fail(item, "stopped before it was launched")
    shown = await launch.item(item)
    assert (shown["state"], shown["message"]) == ("STOPPED", "stopped before it was launched")
    assert (await run(http))["state"] == "crashed", "nobody is left who could say so"


async def test_a_cancel_comes_too_late_for_a_good_end(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await launch.cancel(item)
    await stream(http, complete=True, exitcode=0)
    assert await launch.cancel(item) == (False, "FINISHED")
    assert await launch.state(item) == "FINISHED"
    failed = await launch.push()
    await launch.popped_id()
    await launch.fail(failed)
    assert await launch.cancel(failed) == (False, "FAILED")


async def test_a_stop_of_the_run_is_one_of_its_item(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http)
    await http.data(client_document("StopRun.core"), id=RUN_ID)
    assert (await launch.item(item))["stopRequested"] is True


async def test_a_resumed_run_is_not_what_was_asked_to_stop(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http)
    await launch.cancel(item)
    await stream(http, complete=True, exitcode=255)
    assert (await stream(http))["stopped"] is False
    shown = await launch.item(item)
    assert (shown["state"], shown["stopRequested"]) == ("RUNNING", False)
    await stream(http, complete=True, exitcode=1)
    assert await launch.state(item) == "FAILED"


async def next_life(launch: Launch, http: Http) -> str:
    """Let run r1 fail, and an agent claim another item for it; return that item."""
    await launch.claimed()
    await stream(http, complete=True, exitcode=1)
    again = await launch.push(spec=spec(run_id="r1"))
    await launch.popped_id()
    assert await launch.ack(again, "r1")
    assert not (await run(http))["stopped"]
    return again


@pytest.mark.parametrize("by_run", [False, True])
async def test_the_next_life_of_a_run_is_cancelled_before_it_speaks(
    launch: Launch, http: Http, by_run: bool
) -> None:
    again = await next_life(launch, http)
    if by_run:
        await http.data(client_document("StopRun.core"), id=RUN_ID)
    else:
        await launch.cancel(again)
    assert (await run(http))["stopped"], "its agent hears it"
    await stream(http)  # the run resumes
    assert (await stream(http))["stopped"], "and so does its process"
    await stream(http, complete=True, exitcode=255)
    assert await launch.state(again) == "STOPPED"


async def test_a_next_life_that_its_agent_ends_after_a_cancel_was_stopped(
    launch: Launch, http: Http
) -> None:
    again = await next_life(launch, http)
    await launch.cancel(again)
    await launch.fail(again, "stopped before it was launched")
    assert await launch.state(again) == "STOPPED"
    assert (await run(http))["state"] == "failed", "its first life's end stands"


async def test_a_next_life_that_is_made_anew_after_a_cancel_was_stopped(
    launch: Launch, http: Http
) -> None:
    again = await next_life(launch, http)
    await launch.cancel(again)
    named = {"entity": "tester", "project": "target", "name": "r1"}
    await http.data(client_document("UpsertBucket.core"), **named, state="pending")
    await stream(http, complete=True, exitcode=1)
    assert await launch.state(again) == "STOPPED"


async def test_a_claim_ends_without_its_lost_agent_if_its_run_never_spoke(
    launch: Launch, http: Http
) -> None:
    await launch.queue()
    quiet, talking, agent = await launch.push(), await launch.push(), await launch.agent()
    for item, name in ((quiet, "r1"), (talking, "r2")):
        await launch.ack(item, name, await launch.lease(agent=agent))
    await stream(http, "r2")
    await launch.silence(agent)
    assert await launch.cancel(quiet) == (True, "STOPPED")
    assert await launch.cancel(talking) == (True, "RUNNING")
    assert (await run(http))["state"] == "crashed"
    await stream(http)  # it speaks after all
    assert (await stream(http))["stopped"] is True
    assert await launch.state(quiet) == "STOPPED"


async def test_a_cancelled_claim_does_not_wait_for_an_agent_that_is_lost_later(
    launch: Launch, server: Server
) -> None:
    await launch.queue()
    item, agent = await launch.push(), await launch.agent()
    await launch.ack(item, "r1", await launch.lease(agent=agent))
    await launch.cancel(item)
    store, now = server.services.store, datetime.now(UTC)
    assert await end_abandoned(store, now=now) == 0
    assert await launch.state(item) == "CLAIMED"
    await launch.silence(agent)
    assert await end_abandoned(store, now=now) == 1
    assert await launch.state(item) == "STOPPED"
    assert await end_abandoned(store, now=now) == 0


async def test_a_queue_is_emptied_but_for_what_runs(launch: Launch) -> None:
    await launch.queue()
    await launch.queue("other")
    claimed = await launch.claimed()
    elsewhere = await launch.push("other")
    waiting = [await launch.push() for _ in range(3)]
    await launch.popped_id()
    assert await launch.cancel_all() == 3
    assert await launch.cancel_all() == 0
    assert [await launch.state(item) for item in waiting] == ["STOPPED"] * 3
    assert await launch.state(claimed) == "CLAIMED"
    assert not (await launch.item(claimed))["stopRequested"]
    assert await launch.state(elsewhere, "other") == "PENDING"


async def test_a_queue_is_emptied_with_what_runs(launch: Launch, http: Http) -> None:
    claimed = await launch.claimed()
    waiting = await launch.push()
    assert await launch.cancel_all(running=True) == 2
    assert await launch.cancel_all(running=True) == 0, "it was asked already"
    assert await launch.state(waiting) == "STOPPED"
    assert (await launch.item(claimed))["stopRequested"] is True
    assert (await stream(http))["stopped"] is True


@pytest.mark.parametrize("item", ["UnVuUXVldWVJdGVtOjk5", "nonsense"])
async def test_an_unknown_item_is_named(launch: Launch, item: str) -> None:
    reply = await launch.http.ask(CANCEL, item=item)
    assert reply.status == 404
    assert item in reply.json()["errors"][0]["message"]
    assert (await launch.http.ask(CANCEL_ALL, queue="UnVuUXVldWU6OTk=")).status == 404


async def test_an_item_that_an_agent_has_claimed_is_not_deleted(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    gone = {"queueID": await launch.queue_id(), "runQueueItemId": item}
    reply = await http.ask(client_document("DeleteFromRunQueue.jobs"), **gone)
    assert reply.status == 409
    assert "cancelRunQueueItem" in reply.json()["errors"][0]["message"]
    await stream(http, complete=True, exitcode=0)
    await http.data(client_document("DeleteFromRunQueue.jobs"), **gone)
    assert await launch.item(item) is None


async def test_a_pop_and_a_cancel_at_once_never_both_win(server: Server, http: Http) -> None:
    launch = Launch(http)
    await launch.queue()
    pushed = [decode_number(await launch.push(), "RunQueueItem") for _ in range(20)]
    request, acked, cancelled = server.request(), [], []

    async def take() -> None:
        async with request.store.write() as connection:
            item = await pop(connection, queue_id=1, agent_id=None, now=request.now())
        if item is not None and await launch.ack(
            encode_id("RunQueueItem", item.id), f"r{item.id}", item.lease
        ):
            acked.append(item.id)

    async def cancel(number: int) -> None:
        async with request.store.write() as connection:
            item = await load_item(connection, number)
            assert item is not None
            outcome = await cancel_item(connection, request, item)
        if outcome.state == "STOPPED":
            cancelled.append(number)

    async with anyio.create_task_group() as tasks:
        for number in pushed:
            tasks.start_soon(take)
            tasks.start_soon(cancel, number)
    assert not set(acked) & set(cancelled)
    states = await server.rows("select id, state, stop_requested from queue_items")
    assert {row.id for row in states if row.state == "CLAIMED"} == set(acked)
    assert all(row.stop_requested for row in states if row.state == "CLAIMED")
    assert {row.id for row in states if row.state == "STOPPED"} == set(cancelled)
    assert len(acked) + len(cancelled) == len(pushed)
