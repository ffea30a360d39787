"""Who changed what is written down, with the change itself, for the admins of the entity."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from launch_harness import Launch, spec
from server_harness import USERNAME, Http, Server

from client_documents import client_document
from launch_async.server.access import Role
from launch_async.server.ids import encode_run_id
from launch_async.server.people import delete_person, set_member
from launch_async.server.users import create_api_key, create_team, create_user

pytestmark = pytest.mark.anyio

TRAIL = """query Trail($first: Int, $after: String, $entity: String) {
  entity(name: $entity) { auditLog(first: $first, after: $after) {
    edges { node { id at username action subject details } } pageInfo { endCursor hasNextPage }
  } }
}"""
RUN = {"id": encode_run_id("r1", "proj", USERNAME)}
CREATE_QUEUE = """mutation { createRunQueue(input: {entityName: "tester", queueName: "made",
  projectName: "model-registry", access: PROJECT}) { success } }"""
UPDATE_QUEUE = """mutation Update($queue: ID!, $paused: Boolean, $limit: Int) {
  updateRunQueue(input: {queueID: $queue, paused: $paused, concurrencyLimit: $limit}) {
    runQueue { id } } }"""
CANCEL = """mutation Cancel($item: ID!) {
  cancelRunQueueItem(input: {runQueueItemId: $item}) { success } }"""
CANCEL_ALL = """mutation Cancel($queue: ID!) {
  cancelRunQueueItems(input: {queueID: $queue}) { cancelled } }"""
REQUEUE = """mutation Requeue($item: ID!) {
  requeueRunQueueItem(input: {runQueueItemId: $item}) { runQueueItemId } }"""
STOP_AGENT = """mutation Stop($agent: ID!) {
  stopLaunchAgent(input: {launchAgentId: $agent}) { success } }"""

Entry = dict[str, Any]


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def trail(http: Http, **variables: Any) -> list[Entry]:
    data = await http.data(TRAIL, **variables)
    return [edge["node"] for edge in data["entity"]["auditLog"]["edges"]]


async def newest(http: Http) -> tuple[str, str, Any]:
    """Return action, subject and details of the last entry."""
    entry = (await trail(http, first=1))[0]
    assert entry["username"] == USERNAME
    return entry["action"], entry["subject"], entry["details"]


async def test_a_push_says_who_pushed_where(http: Http, launch: Launch) -> None:
    await launch.queue()
    item = await launch.push()
    expected = {"queue": "q", "project": "tester/Target"}
    assert await newest(http) == ("item.push", item, expected)


async def test_a_queue_is_made_once_and_edited_after(http: Http, launch: Launch) -> None:
    await launch.queue()
    assert await newest(http) == ("queue.create", "q", {"resource": "local-process"})
    await launch.queue(mode="V0")
    details = {"resource": "local-process", "prioritization_mode": "V0"}
    assert await newest(http) == ("queue.edit", "q", details)
    await http.data(CREATE_QUEUE)
    assert await newest(http) == ("queue.create", "made", {})


async def test_a_config_that_a_queue_may_be_made_with_is_noted(http: Http) -> None:
    made = await http.data(
        client_document("CreateDefaultResourceConfig.core"),
        entityName=USERNAME,
        resource="local-process",
        config="{}",
        templateVariables="{}",
    )
    number = made["createDefaultResourceConfig"]["defaultResourceConfigID"]
    assert await newest(http) == ("config.create", number, {"resource": "local-process"})


@pytest.mark.parametrize(
    ("change", "action", "details"),
    [
        ({"paused": True}, "queue.pause", {}),
        ({"paused": False}, "queue.resume", {}),
        ({"limit": 3}, "queue.edit", {"concurrency_limit": 3}),
    ],
)
async def test_a_change_of_a_queue_is_named(
    http: Http, launch: Launch, change: Entry, action: str, details: Entry
) -> None:
    await launch.queue()
    await http.data(UPDATE_QUEUE, queue=await launch.queue_id(), **change)
    assert await newest(http) == (action, "q", details)


async def delete_queue(http: Http, launch: Launch) -> tuple[str, str]:
    await http.data(client_document("DeleteRunQueue.jobs"), id=await launch.queue_id())
    return "queue.delete", "q"


async def cancel_item(http: Http, launch: Launch) -> tuple[str, str]:
    item = await launch.push()
    await http.data(CANCEL, item=item)
    return "item.cancel", item


async def cancel_all(http: Http, launch: Launch) -> tuple[str, str]:
    await http.data(CANCEL_ALL, queue=await launch.queue_id())
    return "queue.cancel_items", "q"


async def requeue(http: Http, launch: Launch) -> tuple[str, str]:
    item = await launch.push()
    await http.data(CANCEL, item=item)
    await http.data(REQUEUE, item=item)
    return "item.requeue", item


async def delete_item(http: Http, launch: Launch) -> tuple[str, str]:
    item, queue = await launch.push(), await launch.queue_id()
    await http.data(client_document("DeleteFromRunQueue.jobs"), queueID=queue, runQueueItemId=item)
    return "item.delete", item


async def stop_agent(http: Http, launch: Launch) -> tuple[str, str]:
    await http.data(STOP_AGENT, agent=await launch.agent())
    ((name,),) = await http.server.rows("select name from launch_agents")
    return "agent.stop", name


async def stop_run(http: Http, _: Launch) -> tuple[str, str]:
    await http.stream("r1", {})
    await http.data(client_document("StopRun.core"), **RUN)
    return "run.stop", "proj/r1"


async def delete_run(http: Http, _: Launch) -> tuple[str, str]:
    await http.stream("r1", {})
    await http.data(client_document("DeleteRun.plain"), **RUN)
    return "run.delete", "proj/r1"


@pytest.mark.parametrize(
    "act",
    [
        delete_queue,
        cancel_item,
        cancel_all,
        requeue,
        delete_item,
        stop_agent,
        stop_run,
        delete_run,
    ],
)
async def test_it_is_written_down(
    http: Http, launch: Launch, act: Callable[[Http, Launch], Awaitable[tuple[str, str]]]
) -> None:
    await launch.queue()
    expected = await act(http, launch)
    assert (await newest(http))[:2] == expected


async def test_a_change_that_is_refused_leaves_no_entry(http: Http, launch: Launch) -> None:
    await launch.queue()
    before = await trail(http)
    assert (await launch.try_push(spec=spec(entity="nobody")))[0] == 403
    assert (await http.ask(client_document("StopRun.core"), **RUN)).status == 404
    assert await trail(http) == before


async def test_no_secret_of_a_spec_stands_in_the_trail(server: Server, launch: Launch) -> None:
    await launch.queue(args={"env": {"TOKEN": "sesame"}})
    await launch.push(spec=spec(_wandb_api_key="k" * 40))
    kept = str(await server.rows("select * from audit_log"))
    assert "item.push" in kept
    assert "sesame" not in kept
    assert "k" * 40 not in kept


async def test_the_trail_is_paged_and_the_newest_comes_first(http: Http, launch: Launch) -> None:
    await launch.queue()
    pushed = [await launch.push() for _ in range(3)]
    page = (await http.data(TRAIL, first=2))["entity"]["auditLog"]
    assert [edge["node"]["subject"] for edge in page["edges"]] == [pushed[2], pushed[1]]
    assert page["pageInfo"]["hasNextPage"] is True
    page = (await http.data(TRAIL, first=2, after=page["pageInfo"]["endCursor"]))["entity"]
    assert [edge["node"]["subject"] for edge in page["auditLog"]["edges"]] == [pushed[0], "q"]
    assert page["auditLog"]["pageInfo"]["hasNextPage"] is False


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("member", 403), ("admin", 200)])
async def test_only_its_admins_read_an_entitys_trail(
    http: Http, server: Server, role: str, status: int
) -> None:
    async with server.services.store.write() as connection:
        user = await create_user(connection, "bob")
        key = await create_api_key(connection, user)
        team = await create_team(connection, "team", admin_user_id=server.user_id)
        await set_member(connection, team, user, Role[role.upper()])
    assert (await http.ask(TRAIL, key, entity="team")).status == status


async def test_the_trail_outlives_the_one_who_did_it(server: Server, http: Http) -> None:
    async with server.services.store.write() as connection:
        user = await create_user(connection, "bob")
        key = await create_api_key(connection, user)
        team = await create_team(connection, "team", admin_user_id=server.user_id)
        await set_member(connection, team, user, Role.ADMIN)
    make = CREATE_QUEUE.replace("tester", "team")
    assert (await http.ask(make, key)).status == 200
    async with server.services.store.write() as connection:
        await delete_person(connection, user)
    (entry,) = await trail(http, entity="team")
    assert (entry["username"], entry["action"]) == ("bob", "queue.create")
    assert json.dumps(entry["details"]) == "{}"
