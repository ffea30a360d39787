"""Where items stand in their queue, as people see it and as agents get them."""

from typing import Any

import pytest
from launch_harness import WHERE, Launch
from server_harness import Http

pytestmark = pytest.mark.anyio

PAGE = """
query($entityName: String!, $projectName: String!, $first: Int, $after: String,
      $order: RunQueueItemOrder, $states: [String!]) {
  project(name: $projectName, entityName: $entityName) { runQueue(name: "q") {
    runQueueItems(first: $first, after: $after, order: $order, states: $states) {
      edges { node { id position } } pageInfo { endCursor hasNextPage } } } } }
"""


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def pages(http: Http, size: int = 100, **variables: Any) -> list[dict[str, Any]]:
    """Return all items of queue q, read page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        data = await http.data(PAGE, **WHERE, first=size, after=after, **variables)
        page = data["project"]["runQueue"]["runQueueItems"]
        found += [edge["node"] for edge in page["edges"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return found


@pytest.mark.parametrize("mode", ["V0", "DISABLED"])
@pytest.mark.parametrize("size", [2, 100])
async def test_the_queues_order_is_the_order_of_the_pops(
    launch: Launch, http: Http, mode: str, size: int
) -> None:
    await launch.queue(mode="V0")
    for priority in (2, 0, 3, 2, 1, 0, 3):
        await launch.push(priority=priority)
    await launch.queue(mode=mode)
    lapsed = await launch.popped_id()
    assert lapsed is not None
    await launch.lapse(lapsed)
    await launch.popped_id()
    await launch.push()
    in_order = await pages(http, size, order="QUEUE")
    assert [node["position"] for node in in_order] == list(range(1, len(in_order) + 1))
    by_age = await pages(http, size)
    places = {node["id"]: node["position"] for node in by_age}
    assert places | {node["id"]: node["position"] for node in in_order} == places
    popped = [await launch.popped_id() for _ in range(len(in_order) + 1)]
    assert popped == [*(node["id"] for node in in_order), None]


async def test_only_what_waits_has_a_position(launch: Launch) -> None:
    await launch.queue()
    items = [await launch.push() for _ in range(4)]
    lease = await launch.lease()
    assert await launch.ack(items[0], "r1", lease)
    await launch.popped_id()
    await launch.cancel(items[2])
    shown = [(await launch.item(item))["position"] for item in items]
    assert shown == [None, None, None, 1]


async def test_an_order_that_lists_what_waits_takes_no_states(http: Http, launch: Launch) -> None:
    await launch.queue()
    reply = await http.ask(PAGE, **WHERE, order="QUEUE", states=["FAILED"])
    assert reply.status == 400
    assert "leave the states out" in reply.json()["errors"][0]["message"]
    assert (await http.ask(PAGE, **WHERE, order="QUEUE", after="nonsense")).status == 404


async def test_switching_priorities_off_leaves_the_order_of_the_pushes(launch: Launch) -> None:
    await launch.queue(mode="V0")
    items = [await launch.push(priority=priority) for priority in (3, 0, 2, 1)]
    await launch.queue(mode="DISABLED")
    assert [await launch.popped_id() for _ in range(4)] == items


async def test_an_update_without_a_mode_keeps_the_priorities(launch: Launch) -> None:
    await launch.queue(mode="V0")
    low, high = [await launch.push(priority=priority) for priority in (3, 0)]
    await launch.queue()
    assert [await launch.popped_id() for _ in range(2)] == [high, low]
