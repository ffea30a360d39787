"""A launched run has a key of its own, which writes that run and nothing else, until it ends."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from launch_harness import ACK, Launch, spec
from server_harness import USERNAME, Http, Reply, Server, Template, running_server
from sqlalchemy import delete, update

from client_documents import client_document
from launch_async.server.access import Role
from launch_async.server.ids import encode_run_id
from launch_async.server.people import set_member
from launch_async.server.runs import set_run_state
from launch_async.server.store.tables.people import memberships, users
from launch_async.server.store.tables.queues import queue_items
from launch_async.server.store.tables.runs import runs
from launch_async.server.users import create_api_key, create_team, create_user

pytestmark = pytest.mark.anyio

RUN = "r1"
PLACE = {"entity": USERNAME, "project": "target"}
STOP_OWN = {"id": encode_run_id(RUN, "target", USERNAME)}


class KeyedRun:
    """An item that an agent holds, and the key that came with it."""

    def __init__(self, http: Http, item: str, key: str) -> None:
        self.http = http
        self.item = item
        self.key = key

    async def upsert(self, name: str = RUN, **more: Any) -> Reply:
        variables = PLACE | {"name": name} | more
        return await self.http.ask(client_document("UpsertBucket.core"), self.key, **variables)

    async def stream(self, body: Any, name: str = RUN) -> Reply:
        path = f"/files/{USERNAME}/target/{name}/file_stream"
        headers = {"Authorization": f"Bearer {self.key}"}
        return await self.http.send("POST", path, json=body, headers=headers)

    async def viewer(self) -> Reply:
        return await self.http.ask(client_document("Viewer.core"), self.key)


@pytest.fixture
async def popped(http: Http) -> KeyedRun:
    launch = Launch(http)
    await launch.queue()
    await launch.push()
    item = await launch.pop()
    assert item is not None
    return KeyedRun(http, item["runQueueItemId"], item["runSpec"]["_wandb_api_key"])


@pytest.fixture
async def run(http: Http, popped: KeyedRun) -> KeyedRun:
    assert await Launch(http).ack(popped.item, RUN)
    return popped


async def test_only_a_digest_of_the_key_is_kept(server: Server, popped: KeyedRun) -> None:
    digest = hashlib.sha256(popped.key.encode()).hexdigest()
    assert await server.rows("select digest from run_keys") == [(digest,)]
    for table in ("queue_items", "audit_log"):
        assert popped.key not in str(await server.rows(f"select * from {table}"))  # noqa: S608


async def test_a_key_that_the_pusher_gave_is_not_replaced(http: Http) -> None:
    launch = Launch(http)
    await launch.queue()
    await launch.push(spec=spec(_wandb_api_key="k" * 40))
    item = await launch.pop()
    assert item is not None
    assert item["runSpec"]["_wandb_api_key"] == "k" * 40
    assert await http.server.rows("select * from run_keys") == []


async def test_a_setting_turns_run_keys_off(http: Http, tmp_path: Path, template: Template) -> None:
    async with running_server(tmp_path / "plain", template, run_keys=False) as server:
        launch = Launch(Http(http.session, server))
        await launch.queue()
        await launch.push()
        item = await launch.pop()
    assert item is not None
    assert "_wandb_api_key" not in item["runSpec"]


async def test_a_sweeps_scheduler_goes_on_with_its_agents_key(http: Http) -> None:
    launch = Launch(http)
    await launch.queue()
    await launch.push(spec=spec(uri="placeholder-uri-scheduler"))
    item = await launch.pop()
    assert item is not None
    assert "_wandb_api_key" not in item["runSpec"]
    assert await http.server.rows("select * from run_keys") == []


async def test_an_item_whose_author_is_gone_gets_a_key_that_opens_nothing_not_its_agents(
    http: Http,
) -> None:
    launch = Launch(http)
    await launch.queue()
    await launch.push()
    async with http.server.services.store.write() as connection:
        await connection.execute(update(queue_items).values(created_by=None))
    item = await launch.pop()
    assert item is not None
    key = item["runSpec"]["_wandb_api_key"]
    assert (await http.ask("{ viewer { id } }", key)).status == 401


async def test_before_the_ack_there_is_no_run_to_write(popped: KeyedRun) -> None:
    reply = await popped.upsert()
    assert reply.status == 403
    assert "no agent acked" in reply.json()["errors"][0]["message"]


async def test_the_key_writes_its_run_and_makes_its_project(run: KeyedRun) -> None:
    assert (await run.upsert()).status == 200
    body = {"files": {"wandb-history.jsonl": {"content": ['{"a":1}']}}}
    assert (await run.stream(body)).status == 200
    rows = await run.http.server.rows(
        "select runs.name, history_lines, username from runs join users on users.id = user_id"
    )
    assert rows == [(RUN, 1, USERNAME)]


@pytest.mark.parametrize("where", [{"name": "other"}, {"project": "elsewhere"}, {"name": None}])
async def test_another_run_is_a_403_and_leaves_no_trace(
    run: KeyedRun, where: dict[str, Any]
) -> None:
    before = await run.http.server.rows("select name from projects")
    reply = await run.upsert(**{"name": RUN} | where)
    assert reply.status == 403
    assert "this key writes one run only" in reply.json()["errors"][0]["message"]
    assert (await run.stream({}, name="other")).status == 403
    assert await run.http.server.rows("select * from runs") == []
    assert await run.http.server.rows("select name from projects") == before


async def test_the_entity_taken_by_default_is_the_runs(run: KeyedRun) -> None:
    viewer = (await run.viewer()).json()["data"]["viewer"]
    assert (viewer["entity"], viewer["username"]) == (USERNAME, USERNAME)
    assert (await run.upsert(entity=None)).status == 200


@pytest.mark.parametrize(
    "query",
    [
        '{ project(name: "model-registry") { runQueues { id } } }',
        '{ project(name: "model-registry") { runQueue(name: "q") { id } } }',
        '{ project(name: "model-registry") { launchAgents { id } } }',
        '{ launchAgent(id: "TGF1bmNoQWdlbnQ6MQ==") { id } }',
        "{ users { edges { node { username } } } }",
        "{ entity { members { username } } }",
        "{ entity { auditLog { edges { node { id } } } } }",
    ],
)
async def test_the_launch_side_and_people_are_closed_to_it(run: KeyedRun, query: str) -> None:
    reply = await run.http.ask(query, run.key)
    assert reply.status == 403
    assert "a run's key may not ask for" in reply.json()["errors"][0]["message"]


async def test_it_is_no_admins_key_even_if_its_author_is_one(run: KeyedRun) -> None:
    assert (await run.http.ask("{ viewer { admin } }", run.key)).json() == {
        "data": {"viewer": {"admin": False}}
    }


async def test_the_next_pop_replaces_the_key(http: Http, popped: KeyedRun) -> None:
    await Launch(http).lapse(popped.item)
    assert (await popped.viewer()).status == 401
    again = await Launch(http).pop()
    assert again is not None
    assert again["runQueueItemId"] == popped.item
    assert (await http.ask("{ viewer { id } }", again["runSpec"]["_wandb_api_key"])).status == 200
    assert (await popped.viewer()).status == 401


async def finish(run: KeyedRun) -> None:
    assert (await run.stream({"complete": True, "exitcode": 0})).status == 200


async def end_badly(run: KeyedRun) -> None:
    assert (await run.stream({"complete": True, "exitcode": 1})).status == 200


async def delete_run(run: KeyedRun) -> None:
    await run.http.data(client_document("DeleteRun.plain"), **STOP_OWN)


async def fail_item(run: KeyedRun) -> None:
    assert await Launch(run.http).fail(run.item)


async def delete_queue(run: KeyedRun) -> None:
    queue = await Launch(run.http).queue_id()
    await run.http.data(client_document("DeleteRunQueue.jobs"), id=queue)


async def delete_author(run: KeyedRun) -> None:
    async with run.http.server.services.store.write() as connection:
        await connection.execute(delete(users))


@pytest.mark.parametrize(
    "end", [finish, end_badly, delete_run, fail_item, delete_queue, delete_author]
)
async def test_the_key_is_dead_at_once_after(
    run: KeyedRun, end: Callable[[KeyedRun], Awaitable[None]]
) -> None:
    assert (await run.upsert()).status == 200
    await end(run)
    assert (await run.viewer()).status == 401
    assert (await run.stream({})).status == 401


@pytest.mark.parametrize(("hours", "status"), [(1, 200), (23, 200), (25, 401)])
async def test_a_run_that_fell_silent_is_heard_again_for_a_day(
    run: KeyedRun, hours: int, status: int
) -> None:
    await run.upsert()
    await _crash(run.http.server, hours_ago=hours)
    assert (await run.stream({})).status == status
    state = "running" if status == 200 else "crashed"
    assert await run.http.server.rows("select state from runs") == [(state,)]


async def test_a_cancel_kills_the_key_of_an_item_that_waits_for_its_ack(popped: KeyedRun) -> None:
    assert (await popped.viewer()).status == 200
    cancel = """mutation C($i: ID!) {
      cancelRunQueueItem(input: {runQueueItemId: $i}) { success } }"""
    await popped.http.data(cancel, i=popped.item)
    assert (await popped.viewer()).status == 401


async def test_the_key_of_an_earlier_life_is_dead_once_a_requeue_took_the_run(
    run: KeyedRun,
) -> None:
    await run.upsert()
    await _crash(run.http.server, hours_ago=1)
    assert (await run.viewer()).status == 200
    requeue = """mutation R($i: ID!) {
      requeueRunQueueItem(input: {runQueueItemId: $i, keepRun: true}) { runQueueItemId } }"""
    await run.http.data(requeue, i=run.item)
    again = await Launch(run.http).pop()
    assert again is not None
    assert await Launch(run.http).ack(again["runQueueItemId"], RUN)
    assert (await run.viewer()).status == 401
    second = KeyedRun(run.http, again["runQueueItemId"], again["runSpec"]["_wandb_api_key"])
    assert (await second.upsert()).status == 200


async def test_a_run_that_was_to_stop_and_fell_silent_is_heard_no_more(run: KeyedRun) -> None:
    await run.upsert()
    await run.http.data(client_document("StopRun.core"), **STOP_OWN)
    await _crash(run.http.server, hours_ago=1)
    assert (await run.viewer()).status == 401


@pytest.mark.parametrize("role", [Role.VIEWER, None])
async def test_an_author_who_may_not_write_there_any_more_takes_the_key_along(
    http: Http, server: Server, role: Role | None
) -> None:
    launch = Launch(http)
    async with server.services.store.write() as connection:
        team = await create_team(connection, "team", admin_user_id=server.user_id)
    await launch.queue()
    await launch.push(spec=spec(entity="team"))
    item = await launch.pop()
    assert item is not None
    key = item["runSpec"]["_wandb_api_key"]
    assert (await http.ask("{ viewer { entity } }", key)).json()["data"] == {
        "viewer": {"entity": "team"}
    }
    async with server.services.store.write() as connection:
        if role is None:
            await connection.execute(delete(memberships).where(memberships.c.entity_id == team))
        else:
            await set_member(connection, team, server.user_id, role)
    assert (await http.ask("{ viewer { id } }", key)).status == 401


async def test_it_sees_the_runs_and_the_queues_entity_and_no_other_of_its_author(
    http: Http, server: Server
) -> None:
    launch = Launch(http)
    async with server.services.store.write() as connection:
        for name in ("team", "other"):
            await create_team(connection, name, admin_user_id=server.user_id)
    await launch.queue()
    await launch.push(spec=spec(entity="team"))
    item = await launch.pop()
    assert item is not None
    key = item["runSpec"]["_wandb_api_key"]
    seen = {
        name: (
            await http.ask("query E($n: String) { entity(name: $n) { id } }", key, n=name)
        ).json()["data"]["entity"]
        is not None
        for name in ("team", USERNAME, "other")
    }
    assert seen == {"team": True, USERNAME: True, "other": False}


async def test_the_run_belongs_to_the_items_author_not_to_the_agents(
    http: Http, server: Server
) -> None:
    launch = Launch(http)
    async with server.services.store.write() as connection:
        author = await create_user(connection, "author")
        key = await create_api_key(connection, author)
        team = await create_team(connection, "team", admin_user_id=server.user_id)
        await set_member(connection, team, author, Role.MEMBER)
        (tester,) = await server.rows("select id from entities where name = 'tester'")
        await set_member(connection, tester[0], author, Role.MEMBER)
    await launch.queue()
    pushed = await http.ask(
        client_document("pushToRunQueueByName.full"),
        key,
        entityName=USERNAME,
        projectName="model-registry",
        queueName="q",
        runSpec='{"entity":"team","project":"p","job":"a/b/c:latest"}',
    )
    assert pushed.status == 200, pushed.json()
    item = await launch.pop()
    assert item is not None
    await http.data(ACK, item=item["runQueueItemId"], run=RUN)
    reply = await http.ask(
        client_document("UpsertBucket.core"),
        item["runSpec"]["_wandb_api_key"],
        entity="team",
        project="p",
        name=RUN,
    )
    assert reply.status == 200
    assert await server.rows("select user_id from runs") == [(author,)]


async def _crash(server: Server, *, hours_ago: int) -> None:
    """Let the run be given up, as the crash watch does, but some time ago."""
    then = datetime.now(UTC) - timedelta(hours=hours_ago)
    async with server.services.store.write() as connection:
        await set_run_state(connection, 1, "crashed", now=then)
        await connection.execute(update(runs).values(finished_at=then))
