"""Pop, ack and lapse: an item is never in two hands."""

import anyio
import pytest
from launch_harness import ACK, Launch
from server_harness import Http, Server
from sqlalchemy import select

from client_documents import client_document
from launch_async.server.leases import pop
from launch_async.server.store.tables.people import entities
from launch_async.server.users import add_member, create_api_key, create_user

pytestmark = pytest.mark.anyio

FAIL = client_document("failRunQueueItem.api")


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def test_items_are_popped_in_the_order_of_their_pushes(launch: Launch) -> None:
    await launch.queue()
    pushed = [await launch.push() for _ in range(3)]
    assert [await launch.popped_id() for _ in range(4)] == [*pushed, None]


async def test_a_lower_priority_number_is_popped_first(launch: Launch) -> None:
    await launch.queue(mode="V0")
    low, medium, critical = [await launch.push(priority=n) for n in (3, None, 0)]
    assert [await launch.popped_id() for _ in range(3)] == [critical, medium, low]


async def test_two_hundred_pops_at_once_take_each_item_once(server: Server, http: Http) -> None:
    launch = Launch(http)
    await launch.queue()
    pushed = [await launch.push() for _ in range(100)]
    taken: list[int] = []

    async def take() -> None:
        request = server.request()
        async with request.store.write() as connection:
            item = await pop(connection, queue_id=1, agent_id=None, now=request.now())
        if item is not None:
            taken.append(item.id)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(take)
    assert len(taken) == len(set(taken)) == len(pushed)


async def test_a_popped_item_is_leased_for_a_minute(launch: Launch) -> None:
    await launch.queue()
    item, agent = await launch.push(), await launch.agent()
    assert await launch.popped_id(agent=agent) == item
    shown = await launch.item(item)
    assert (shown["state"], shown["agentId"]) == ("LEASED", agent)
    assert shown["agentName"].startswith("agent-")
    assert shown["leasedAt"] < shown["leaseExpiresAt"]


async def test_a_lapsed_item_is_pending_and_is_popped_again(launch: Launch) -> None:
    await launch.queue()
    item = await launch.push()
    await launch.popped_id()
    await launch.lapse(item)
    assert await launch.state(item) == "PENDING"
    assert await launch.popped_id() == item
    assert await launch.state(item) == "LEASED"


async def test_a_lapsed_item_is_nobodys(launch: Launch) -> None:
    await launch.queue()
    item = await launch.push()
    lease = await launch.lease()
    await launch.lapse(item)
    for held in (lease, None):
        assert not await launch.ack(item, "r1", held)
        assert await launch.fail(item, lease=held)
    assert await launch.state(item) == "PENDING"
    assert (await launch.item(item))["message"] is None


async def test_a_lapsed_item_is_its_next_holders(launch: Launch) -> None:
    await launch.queue()
    item, agent = await launch.push(), await launch.agent()
    late = await launch.lease(agent=agent)
    await launch.lapse(item)
    quick = await launch.lease(agent=agent)
    assert late != quick
    assert not await launch.ack(item, "fixed", late), "of the same agent, for the same run even"
    assert await launch.ack(item, "fixed", quick)
    assert not await launch.ack(item, "fixed", late)
    assert (await launch.item(item))["associatedRunId"] == "fixed"


async def test_the_first_ack_fixes_the_run(launch: Launch) -> None:
    item = await launch.claimed("r1")
    assert await launch.ack(item, "r1")
    assert not await launch.ack(item, "r2")
    shown = await launch.item(item)
    assert (shown["state"], shown["associatedRunId"]) == ("CLAIMED", "r1")
    assert shown["claimedAt"] is not None
    await launch.lapse(item)
    assert await launch.popped_id() is None, "a claimed item never lapses"


async def test_an_item_that_was_never_popped_deleted_or_ended_is_not_acked(launch: Launch) -> None:
    await launch.queue()
    item = await launch.push()
    assert not await launch.ack(item, "r1")
    assert await launch.state(item) == "PENDING"
    await launch.popped_id()
    await launch.fail(item)
    assert not await launch.ack(item, "r1")
    assert not await launch.ack("UnVuUXVldWVJdGVtOjk5", "r1")
    assert not await launch.ack("nonsense", "r1")


async def test_an_agent_cannot_fail_or_warn_of_what_another_holds(launch: Launch) -> None:
    await launch.queue()
    item = await launch.push()
    late = await launch.lease()
    await launch.lapse(item)
    quick = await launch.lease()
    for before in ("LEASED", "CLAIMED"):
        await launch.fail(item, lease=late)
        await launch.warn(item, "late", lease=late)
        assert await launch.state(item) == before
        assert await launch.ack(item, "r1", quick)
    await launch.warn(item, "quick", lease=quick)
    assert [each["message"] for each in (await launch.item(item))["warnings"]] == ["quick"]
    await launch.fail(item, lease=quick)
    assert await launch.state(item) == "FAILED"


async def test_a_loser_that_does_not_say_who_it_is_is_known_by_its_words(launch: Launch) -> None:
    item = await launch.claimed()
    await launch.fail(
        item,
        "Error acking run queue item. Item may have already been acknowledged by another process",
    )
    assert await launch.state(item) == "CLAIMED"


async def test_without_a_lease_an_item_is_its_agents_users(launch: Launch, server: Server) -> None:
    await launch.queue()
    item, agent = await launch.push(), await launch.agent()
    await launch.popped_id(agent=agent)
    async with server.services.store.write() as connection:
        other = await create_user(connection, "other")
        key = await create_api_key(connection, other)
        entity = await connection.scalar(select(entities.c.id).where(entities.c.name == "tester"))
        assert entity is not None
        await add_member(connection, entity, other)
    acked = await launch.http.ask(ACK, key, item=item, run="r1")
    assert acked.json()["data"]["ackRunQueueItem"]["success"] is False
    await launch.http.ask(FAIL, key, runQueueItemId=item, message="m", stage="run")
    assert await launch.state(item) == "LEASED"
    assert await launch.ack(item, "r1")
    await launch.http.ask(FAIL, key, runQueueItemId=item, message="m", stage="run")
    assert await launch.state(item) == "CLAIMED"


async def test_a_run_id_that_could_not_stand_in_a_path_is_refused(launch: Launch) -> None:
    await launch.queue()
    item = await launch.push()
    await launch.popped_id()
    reply = await launch.http.ask(
        'mutation($i: ID!) { ackRunQueueItem(input: {runQueueItemId: $i, runName: "a/b"}) '
        "{ success } }",
        i=item,
    )
    assert reply.status == 400
    assert await launch.state(item) == "LEASED"
