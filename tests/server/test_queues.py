"""Queues: made, changed and deleted."""

import json
from typing import Any

import anyio
import pytest
from launch_harness import CANCEL, CANCEL_ALL, CHANGE, REQUEUE, WHERE, Launch, spec
from server_harness import Http, Server
from sqlalchemy import Engine, event, insert

from client_documents import client_document
from launch_async.domain.lease import ItemState
from launch_async.server.cancels import BATCH_ITEMS
from launch_async.server.queueing import push
from launch_async.server.queues import require_queue
from launch_async.server.store.tables.queues import queue_items
from launch_async.server.users import create_api_key, create_user

pytestmark = pytest.mark.anyio


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def create(http: Http, name: str, **more: Any) -> Any:
    variables = {"entity": "tester", "project": "model-registry", "access": "PROJECT"} | more
    return await http.ask(client_document("CreateRunQueue.core"), queueName=name, **variables)


async def make_config(http: Http, **changes: Any) -> Any:
    given = {
        "entityName": "tester",
        "resource": "local-container",
        "config": '{"resource_args": {"local-container": {"cpus": "{{n}}"}}}',
        "templateVariables": '{"n": {"schema": {"type": "integer", "minimum": 1, "maximum": 4}}}',
    } | changes
    return await http.ask(client_document("CreateDefaultResourceConfig.core"), **given)


async def shown(http: Http, name: str) -> Any:
    data = await http.data(client_document("GetRunQueueMetadata.jobs"), **WHERE, runQueue=name)
    return data["project"]["runQueue"]


async def test_a_queue_is_made_in_two_steps(http: Http) -> None:
    made = (await make_config(http)).json()["data"]["createDefaultResourceConfig"]
    reply = await create(http, "q", defaultResourceConfigID=made["defaultResourceConfigID"])
    assert reply.json()["data"]["createRunQueue"]["success"] is True
    queue = await shown(http, "q")
    assert queue == {
        "id": reply.json()["data"]["createRunQueue"]["queueID"],
        "access": "PROJECT",
        "defaultResourceConfigID": made["defaultResourceConfigID"],
        "prioritizationMode": "DISABLED",
        "externalLinks": {"links": []},
    }
    data = await http.data(
        client_document("GetDefaultResourceConfig.jobs"),
        entityName="tester",
        id=queue["defaultResourceConfigID"],
    )
    assert data["entity"]["defaultResourceConfig"] == {
        "config": {"resource_args": {"local-container": {"cpus": "{{n}}"}}},
        "resource": "local-container",
        "templateVariables": [
            {"name": "n", "schema": '{"type":"integer","minimum":1,"maximum":4}'}
        ],
    }


async def test_a_taken_name_is_a_409(http: Http) -> None:
    assert (await create(http, "q")).status == 200
    again = await create(http, "q")
    assert again.status == 409
    assert "has a queue 'q' already" in again.json()["errors"][0]["message"]


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "a\nb"])
async def test_a_bad_name_is_refused(http: Http, name: str) -> None:
    assert (await create(http, name)).status == 400
    assert (await create(http, "x" * 64)).status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"resource": "slurm"},
        {"config": "[]"},
        {"config": '{"resource_args": {"kubernetes": {}}}'},
        {"config": '{"resource_args": {"local-container": 3}}'},
        {"templateVariables": '{"n": {"schema": {"type": "list"}}}'},
        {"templateVariables": "[]"},
    ],
)
async def test_a_bad_config_is_refused(http: Http, changes: dict[str, str]) -> None:
    assert (await make_config(http, **changes)).status == 400


async def test_a_type_that_this_server_does_not_know_names_the_setting(http: Http) -> None:
    refused = await make_config(http, resource="slurm")
    assert "--extra-resource-type" in refused.json()["errors"][0]["message"]


async def test_an_upsert_changes_a_queue_and_leaves_no_config_behind(
    launch: Launch, http: Http, server: Server
) -> None:
    await launch.queue(args={"a": "{{n}}"}, variables={"n": {"schema": {"type": "integer"}}})
    before = await launch.queue_id()
    given = {**WHERE, "queueName": "q", "resourceType": "local-process"}
    changed = await http.data(
        client_document("UpsertRunQueue.core"),
        **given,
        resourceConfig='{"resource_args": {"local-process": {}}}',
        templateVariables=None,
        prioritizationMode="V0",
        externalLinks=json.dumps({"links": [{"label": "l", "url": "https://example.com"}]}),
    )
    assert changed["upsertRunQueue"] == {"success": True, "configSchemaValidationErrors": []}
    queue = await shown(http, "q")
    assert (queue["id"], queue["prioritizationMode"]) == (before, "V0")
    assert queue["externalLinks"]["links"][0]["label"] == "l"
    (config,) = await server.rows("select * from resource_configs")
    assert config.template_variables == "{}", "null clears them"


async def test_upserts_at_once_make_one_queue_and_one_config(
    launch: Launch, server: Server
) -> None:
    await launch.queue("before")  # its project is made with it
    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(launch.queue)
    assert len(await server.rows("select id from run_queues")) == 2
    assert len(await server.rows("select id from resource_configs")) == 2


@pytest.mark.parametrize(
    ("links", "reason"),
    [
        ({}, "has the form"),
        ({"links": ["https://example.com"]}, "link 1 needs a label and a url"),
        ({"links": [{"label": "a", "url": "http://x"}, {"label": "b"}]}, "link 2 needs"),
        ({"links": [{"label": "l", "url": "javascript:alert(1)"}]}, "link 'l': its url must begin"),
    ],
)
async def test_a_link_that_is_none_is_refused(http: Http, links: Any, reason: str) -> None:
    reply = await http.ask(
        client_document("UpsertRunQueue.core"),
        **WHERE,
        queueName="q",
        resourceType="local-process",
        resourceConfig="{}",
        externalLinks=json.dumps(links),
    )
    assert reply.status == 400
    assert reason in reply.json()["errors"][0]["message"]
    assert await shown(http, "q") is None


async def test_a_deleted_queue_takes_its_items_along(
    launch: Launch, http: Http, server: Server
) -> None:
    await launch.queue()
    await launch.push()
    queue_id = await launch.queue_id()
    data = await http.data(client_document("DeleteRunQueue.jobs"), id=queue_id)
    assert data["deleteRunQueues"]["success"] is True
    assert await shown(http, "q") is None
    assert await server.rows("select id from queue_items") == []
    assert await server.rows("select id from resource_configs") == []
    assert (await http.ask(client_document("DeleteRunQueue.jobs"), id=queue_id)).status == 404


async def test_a_queue_with_the_items_of_years_goes_bit_by_bit(
    launch: Launch, http: Http, server: Server
) -> None:
    await launch.queue()
    await launch.queue("other")
    kept = await launch.push("other")
    queue_id = await launch.queue_id()
    item = {
        "queue_id": 1,
        "priority": 2,
        "run_spec": "{}",
        "created_at": server.request().now(),
        "run_entity": "tester",
        "run_project_folded": "p",
        "file_paths": "[]",
    }
    many = [{**item, "state": state} for state in ItemState] * (2 * BATCH_ITEMS // len(ItemState))
    async with server.services.store.write() as connection:
        await connection.execute(insert(queue_items), many)
    commits: list[int] = []

    def note(_: Any) -> None:
        commits.append(1)

    event.listen(Engine, "commit", note)
    try:
        await http.data(client_document("DeleteRunQueue.jobs"), id=queue_id)
    finally:
        event.remove(Engine, "commit", note)
    assert len(commits) > len(many) // BATCH_ITEMS
    assert await shown(http, "q") is None
    assert await launch.state(kept, "other") == "PENDING"
    assert len(await server.rows("select id from queue_items")) == 1


async def test_queues_are_listed_with_their_makers(launch: Launch, http: Http) -> None:
    nothing = await http.data(
        client_document("ProjectRunQueues.api"), entity="tester", projectName="model-registry"
    )
    assert nothing["project"]["runQueues"] == []
    await launch.queue("a")
    await launch.queue("b")
    data = await http.data(
        client_document("ProjectRunQueues.api"), entity="tester", projectName="model-registry"
    )
    assert [
        (queue["name"], queue["createdBy"], queue["access"])
        for queue in data["project"]["runQueues"]
    ] == [("a", "tester", "PROJECT"), ("b", "tester", "PROJECT")]


async def test_a_stranger_reaches_neither_queue_nor_item(
    launch: Launch, http: Http, server: Server
) -> None:
    item = await launch.claimed()
    queue_id, agent = await launch.queue_id(), await launch.agent()
    async with server.services.store.write() as connection:
        key = await create_api_key(connection, await create_user(connection, "stranger"))

    async def ask(name: str, **variables: Any) -> Any:
        reply = await http.ask(client_document(name), key, **variables)
        return reply.status, reply.json().get("data")

    push = {**WHERE, "queueName": "q", "runSpec": '{"entity": "tester"}'}
    pop = {"entity": "tester", "project": "model-registry", "queueName": "q"}
    told = {"runQueueItemId": item, "message": "m", "stage": "run"}
    assert (await ask("pushToRunQueueByName.api", **push))[0] == 403
    assert (await ask("pushToRunQueue.api", queueID=queue_id, runSpec="{}"))[0] == 404
    assert (await ask("popFromRunQueue.api", **pop, launchAgentId=agent))[0] == 403
    assert (await ask("DeleteRunQueue.jobs", id=queue_id))[0] == 404
    gone = {"queueID": queue_id, "runQueueItemId": item}
    assert (await ask("DeleteFromRunQueue.jobs", **gone))[0] == 404
    for document in (CANCEL, REQUEUE):
        assert (await http.ask(document, key, item=item)).status == 404
    for document in (CANCEL_ALL, CHANGE):
        assert (await http.ask(document, key, queue=queue_id, paused=True)).status == 404
    ack = await ask("ackRunQueueItem.api", itemId=item, runId="r1")
    assert ack == (200, {"ackRunQueueItem": {"success": False}})
    fail = await ask("failRunQueueItem.api", **told)
    assert fail == (200, {"failRunQueueItem": {"success": False}})
    assert await ask("LaunchAgent.api", agentId=agent) == (200, {"launchAgent": None})
    updated = await ask("updateLaunchAgent.api", agentId=agent, agentStatus="KILLED")
    assert updated == (200, {"updateLaunchAgent": {"success": False}})
    kept = await launch.item(item)
    assert (kept["state"], kept["stopRequested"]) == ("CLAIMED", False)
    assert (await launch.change())["isPaused"] is False


async def test_what_is_pushed_while_its_queue_changes_has_the_queues_type_all_the_same(
    launch: Launch, server: Server
) -> None:
    """Read by itself, the config would be gone: the item would be a container, with no limits."""
    await launch.queue(args={"env": {"A": "1"}})
    async with server.services.store.read() as connection:
        queue = await require_queue(connection, "tester", "model-registry", "q")
    await launch.queue(args={"env": {"A": "2"}})
    async with server.services.store.write() as connection:
        pushed = await push(
            connection,
            server.request(),
            queue,
            run_spec=json.dumps(spec()),
            template_values=None,
            priority=None,
        )
    assert pushed.spec["resource"] == "local-process"
    assert pushed.spec["resource_args"] == {"local-process": {"env": {"A": "1"}}}
