"""Queues that are paused, and queues that let agents hold so many items at once."""

from datetime import timedelta

import anyio
import pytest
from launch_harness import CHANGE, Launch
from server_harness import Http, Server

from launch_async.domain.lease import LEASE
from launch_async.server.agents import Poll
from launch_async.server.claims import pop_item
from launch_async.server.context import utc_now
from launch_async.server.leases import has_room
from launch_async.server.queues import QueueRow, change_queue, find_queue_by_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def finish(http: Http, run: str) -> None:
    reply = await http.stream(run, {"complete": True, "exitcode": 0}, project="target")
    assert reply.status == 200


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(launch: Launch) -> None:
    await launch.queue()
    item, agent = await launch.push(), await launch.agent()
    paused = await launch.change(paused=True)
    assert paused["isPaused"] is True
    assert paused["pausedAt"] is not None
    assert await launch.change(paused=True) == paused, "it has been paused since then"
    assert await launch.pop(agent=agent) is None
    assert await launch.state(item) == "PENDING"
    another = await launch.push()
    resumed = await launch.change(paused=False)
    assert (resumed["isPaused"], resumed["pausedAt"]) == (False, None)
    assert [await launch.popped_id() for _ in range(2)] == [item, another]


async def test_what_agents_have_goes_on_in_a_paused_queue(launch: Launch) -> None:
    await launch.queue()
    item = await launch.push()
    lease = await launch.lease()
    await launch.change(paused=True)
    assert await launch.ack(item, "r1", lease)


async def test_a_limit_counts_what_agents_hold(launch: Launch, http: Http) -> None:
    await launch.queue()
    items = [await launch.push() for _ in range(4)]
    assert (await launch.change(limit=2))["concurrencyLimit"] == 2
    first, second = await launch.lease(), await launch.lease()
    assert await launch.pop() is None, "two are leased"
    assert await launch.ack(items[0], "r1", first)
    assert await launch.ack(items[1], "r2", second)
    await http.stream("r2", {}, project="target")
    assert await launch.pop() is None, "one is claimed and one is running"
    await finish(http, "r1")
    assert await launch.popped_id() == items[2]
    assert await launch.pop() is None
    await launch.lapse(items[2])
    assert await launch.popped_id() == items[2], "a lapsed lease holds nothing"
    await launch.cancel(items[2])
    assert await launch.popped_id() == items[3]


async def test_a_limit_is_lifted_and_lowered(launch: Launch) -> None:
    await launch.queue()
    for _ in range(3):
        await launch.push()
    await launch.change(limit=1)
    await launch.popped_id()
    assert await launch.pop() is None
    changed = await launch.change(limit=0)
    assert changed["concurrencyLimit"] is None
    assert await launch.pop() is not None
    assert (await launch.change(limit=1))["concurrencyLimit"] == 1
    assert await launch.pop() is None, "two are held"


async def test_what_is_not_given_stays(launch: Launch) -> None:
    await launch.queue()
    await launch.change(paused=True, limit=3)
    changed = await launch.change()
    assert (changed["isPaused"], changed["concurrencyLimit"]) == (True, 3)
    await launch.queue(args={"a": 1})
    changed = await launch.change()
    assert (changed["isPaused"], changed["concurrencyLimit"]) == (True, 3), "an upsert's too"


async def test_a_limit_below_nothing_is_refused(launch: Launch) -> None:
    await launch.queue()
    reply = await launch.http.ask(CHANGE, queue=await launch.queue_id(), limit=-1)
    assert reply.status == 400
    assert "concurrency limit of -1" in reply.json()["errors"][0]["message"]
    assert (await launch.http.ask(CHANGE, queue="UnVuUXVldWU6OTk=", limit=1)).status == 404


def poll_of(queue: QueueRow) -> Poll:
    return Poll(queue.id, queue.paused_at, queue.concurrency_limit)


async def test_a_limit_holds_for_racing_pops(server: Server, http: Http) -> None:
    launch = Launch(http)
    await launch.queue()
    for _ in range(12):
        await launch.push()
    await launch.change(limit=5)
    queue_id, request = await launch.queue_id(), server.request()
    taken: list[int] = []

    async def take() -> None:
        async with request.store.write() as connection:
            queue = await find_queue_by_id(connection, request, queue_id)
            assert queue is not None
            item = await pop_item(connection, poll_of(queue), digest=None, now=request.now())
        if item is not None:
            taken.append(item.id)

    for expected in (5, 7):
        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(take)
        assert len(taken) == len(set(taken)) == expected
        async with request.store.write() as connection:
            queue = await find_queue_by_id(connection, request, queue_id)
            assert queue is not None
            await change_queue(
                connection, queue, paused=None, concurrency_limit=7, now=request.now()
            )


async def test_an_agent_is_heard_by_its_pops_though_the_queue_is_paused(launch: Launch) -> None:
    await launch.queue()
    agent = await launch.agent()
    await launch.change(paused=True)
    await launch.silence(agent)
    await launch.pop(agent=agent)
    online = await launch.http.data("query($id: ID!) { launchAgent(id: $id) { online } }", id=agent)
    assert online["launchAgent"]["online"] is True


async def test_a_lease_that_lapses_later_still_counts(launch: Launch, server: Server) -> None:
    await launch.queue()
    await launch.push()
    await launch.push()
    await launch.change(limit=1)
    await launch.popped_id()
    queue_id, request = await launch.queue_id(), server.request()
    for moment, room in ((LEASE - timedelta(seconds=5), False), (LEASE, True)):
        async with request.store.write() as connection:
            queue = await find_queue_by_id(connection, request, queue_id)
            assert queue is not None
            item = await pop_item(connection, poll_of(queue), digest=None, now=utc_now() + moment)
        assert (item is not None) is room


@pytest.mark.postgres
async def test_a_pop_from_a_limited_queue_keeps_no_push_waiting(
    launch: Launch, server: Server
) -> None:
    await launch.queue()
    await launch.change(limit=1)
    async with server.services.store.write() as connection:
        assert await has_room(connection, 1, now=server.request().now())
        with anyio.fail_after(5):
            assert await launch.push()
