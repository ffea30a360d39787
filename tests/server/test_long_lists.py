"""Lists in a request have an end, name each thing once, and cost one statement."""

from typing import Any

import pytest
from launch_harness import WHERE, Launch
from server_harness import Http, Reply

from client_documents import client_document
from launch_async.server.claims import MAX_MESSAGE, MAX_PATHS, MAX_WARNINGS
from launch_async.server.queues import MAX_QUEUES

pytestmark = pytest.mark.anyio

DELETE = "mutation D($ids: [ID!]!) { deleteRunQueues(input: {queueIDs: $ids}) { success } }"
PAGE = """
query P($entityName: String!, $projectName: String!, $states: [String!]) {
  project(name: $projectName, entityName: $entityName) { runQueue(name: "q") {
    runQueueItems(states: $states) { edges { node { id } } } } } }
"""


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def register(http: Http, queues: list[str]) -> Reply:
    return await http.ask(
        client_document("createLaunchAgent.api"),
        entity="tester",
        project="model-registry",
        queues=queues,
        hostname="host",
        agentConfig="{}",
        version="1",
    )


def told(reply: Reply) -> tuple[int, Any]:
    return reply.status, reply.json()["errors"][0]["message"]


async def test_a_queue_that_is_named_again_and_again_is_one(launch: Launch, http: Http) -> None:
    await launch.queue()
    queue = await launch.queue_id()
    assert (await register(http, [queue] * MAX_QUEUES)).status == 200
    assert await http.server.rows("select queue_id from launch_agent_queues") == [(1,)]
    assert (await http.ask(DELETE, ids=[queue] * MAX_QUEUES)).status == 200
    noted = await http.server.rows("select subject from audit_log where action = 'queue.delete'")
    assert noted == [("q",)]


async def test_too_many_queues_at_once_are_refused(launch: Launch, http: Http) -> None:
    await launch.queue()
    queues = [await launch.queue_id()] * (MAX_QUEUES + 1)
    for reply in (await register(http, queues), await http.ask(DELETE, ids=queues)):
        status, message = told(reply)
        assert (status, f"name {MAX_QUEUES} at most" in message) == (400, True)
    assert await http.server.rows("select name from run_queues") == [("q",)]


async def test_a_queue_among_others_that_is_unknown_is_named_and_nothing_is_done(
    launch: Launch, http: Http
) -> None:
    await launch.queue()
    queues = [await launch.queue_id(), "UnVuUXVldWU6OTk="]
    for reply in (await register(http, queues), await http.ask(DELETE, ids=queues)):
        status, message = told(reply)
        assert (status, "'UnVuUXVldWU6OTk='" in message) == (404, True)
    assert await http.server.rows("select id from launch_agents") == []
    assert await http.server.rows("select name from run_queues") == [("q",)]


async def test_a_state_may_be_named_again_and_again(launch: Launch, http: Http) -> None:
    await launch.queue()
    item = await launch.push()
    page = (await http.data(PAGE, **WHERE, states=["PENDING"] * 50_000))["project"]["runQueue"]
    assert [edge["node"]["id"] for edge in page["runQueueItems"]["edges"]] == [item]


async def test_a_word_that_is_no_state_is_a_400_with_those_that_are(
    launch: Launch, http: Http
) -> None:
    await launch.queue()
    status, message = told(await http.ask(PAGE, **WHERE, states=["PENDING", "DONE"]))
    assert (status, "'DONE' is no state of an item; there are PENDING" in message) == (400, True)


async def test_an_item_has_so_many_warnings_at_most(launch: Launch) -> None:
    item = await launch.claimed()
    for number in range(MAX_WARNINGS + 2):
        await launch.warn(item, f"warning {number}")
    warnings = (await launch.item(item))["warnings"]
    assert [each["message"] for each in warnings] == [
        f"warning {number}" for number in range(MAX_WARNINGS)
    ]


async def test_why_an_item_failed_is_cut_and_never_refused(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    told = {"runQueueItemId": item, "message": "m" * (MAX_MESSAGE + 1), "stage": "s" * 65}
    paths = [f"p{number}" for number in range(MAX_PATHS + 1)]
    for name in ("updateRunQueueItemWarning", "updateRunQueueItemWarning", "failRunQueueItem"):
        data = await http.data(client_document(f"{name}.api"), **told, filePaths=paths)
        assert data[name]["success"]
    shown = await launch.item(item)
    assert shown["state"] == "FAILED"
    for kept in (shown, *shown["warnings"]):
        assert kept["message"] == "m" * MAX_MESSAGE
        assert kept["stage"] == "s" * 64
        assert kept["filePaths"] == paths[:MAX_PATHS]
    assert len(shown["warnings"]) == 1
