"""Requests at once do what they would do one after the other, on both databases."""

import json
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import pytest
from artifact_harness import ArtifactClient
from launch_harness import Launch
from server_harness import USERNAME, Http, Server
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from client_documents import client_document
from launch_async.compose.server import local_key
from launch_async.server.claims import ack_item
from launch_async.server.crashes import mark_crashed
from launch_async.server.items import find_item
from launch_async.server.leases import pop
from launch_async.server.runs import upsert_run
from launch_async.server.store import Store
from launch_async.server.store.engine import WRITERS

pytestmark = pytest.mark.anyio

AT_ONCE = 16
ITEMS = 200
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture(autouse=True)
async def warm(server: Server) -> None:
    """Connections are open: opening one takes longer than a transaction, and would order all."""
    store = server.services.store
    if store.dialect == "sqlite":
        return
    async with AsyncExitStack() as stack:
        for _ in range(WRITERS):
            connection = await stack.enter_async_context(store.write())
            await connection.execute(text("SELECT 1"))


async def together(*works: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Do all at once; return what each returned."""
    results: dict[int, Any] = {}

    async def do(number: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        results[number] = await work()

    async with anyio.create_task_group() as tasks:
        for number, work in enumerate(works):
            tasks.start_soon(do, number, work)
    return [results[number] for number in range(len(works))]


async def until_it_waits(store: Store, done: anyio.Event) -> None:
    """Wait until somebody waits for a lock, or `done`."""
    while not done.is_set():
        async with store.read() as connection:
            if await connection.scalar(text(WAITING)):
                return
        await anyio.sleep(0.01)


async def test_one_of_many_makes_a_run_and_all_change_it(http: Http, server: Server) -> None:
    fields = ("displayName", "groupName", "notes", "jobType", "program", "host", "sweep", "repo")

    async def upsert(field: str) -> bool:
        given = {"name": "r1", "project": "proj", "entity": USERNAME, field: "x"}
        data = await http.data(client_document("UpsertBucket.core"), **given)
        return data["upsertBucket"]["inserted"]

    await http.stream("other", {})  # the project is there, so that its making orders nobody
    inserted = await together(*(partial(upsert, field) for field in fields))
    assert sorted(inserted) == [False] * (len(fields) - 1) + [True]
    columns = "display_name, group_name, notes, job_type, program, host, sweep_name, repo"
    rows = await server.rows(f"SELECT {columns} FROM runs WHERE name = 'r1'")  # noqa: S608
    assert [tuple(row) for row in rows] == [("x",) * len(fields)]


async def test_lines_that_come_many_times_at_once_count_once(http: Http, server: Server) -> None:
    lines = [json.dumps({"_step": step, "loss": step}) for step in range(20)]

    async def say(first: int) -> int:
        block = {"offset": first, "content": lines[first : first + 5]}
        return (await http.stream("r1", {"files": {"wandb-history.jsonl": block}})).status

    await http.stream("r1", {})
    says = [partial(say, number % 4 * 5) for number in range(AT_ONCE)]
    assert await together(*says) == [200] * AT_ONCE
    (row,) = await server.rows("SELECT history_lines, last_step, history_keys FROM runs")
    assert (row.history_lines, row.last_step) == (20, 19)
    assert json.loads(row.history_keys)["loss"]["typeCounts"] == [{"type": "number", "count": 20}]
    assert await server.rows("SELECT count(*) FROM run_history") == [(20,)]


async def test_versions_of_the_same_bytes_that_begin_at_once_are_one(http: Http) -> None:
    client = ArtifactClient(http)
    await client.create(digest="e" * 32)  # its collection is there, and orders nobody
    made = await together(*(client.create for _ in range(AT_ONCE)))
    assert len({each["id"] for each in made}) == 1


async def test_a_queue_that_many_make_at_once_is_one(http: Http, server: Server) -> None:
    launch = Launch(http)
    await together(*(partial(launch.queue, args={"n": n}) for n in range(AT_ONCE)))
    assert await server.rows("SELECT count(*) FROM run_queues") == [(1,)]
    assert await server.rows("SELECT count(*) FROM resource_configs") == [(1,)], "none is left over"


async def test_a_warning_that_comes_many_times_at_once_is_one(http: Http) -> None:
    launch = Launch(http)
    item = await launch.claimed()
    await together(*(partial(launch.warn, item, "slow") for _ in range(AT_ONCE)))
    assert len((await launch.item(item))["warnings"]) == 1


async def test_servers_that_start_at_once_make_one_local_user(
    server: Server, tmp_path: Path
) -> None:
    folders = [tmp_path / str(number) for number in range(8)]
    for folder in folders:
        folder.mkdir()
    keys = await together(*(partial(local_key, server.services, folder) for folder in folders))
    assert len({key.reveal() for key in keys}) == len(folders)
    assert await server.rows("SELECT count(*) FROM users WHERE username = 'local'") == [(1,)]


async def claim(connection: AsyncConnection, server: Server, item: str, run: str) -> bool:
    """Ack an item in a transaction of ours."""
    request = server.request()
    row = await find_item(connection, request, item)
    assert row is not None
    return await ack_item(
        connection, row, run_name=run, lease=None, viewer=request.viewer, now=request.now()
    )


@pytest.mark.postgres
async def test_a_run_that_begins_during_its_ack_takes_the_item_along(
    http: Http, server: Server
) -> None:
    """Neither sees what the other one has not committed yet: without a lock, both would pass by."""
    launch, store, done = Launch(http), server.services.store, anyio.Event()
    await launch.queue()
    item = await launch.push()
    await launch.popped_id()

    async def begin() -> None:
        assert (await http.stream("r1", {}, "Target")).status == 200
        done.set()

    async with anyio.create_task_group() as tasks, store.write() as connection:
        assert await claim(connection, server, item, "r1")
        tasks.start_soon(begin)
        await until_it_waits(store, done)
    assert await launch.state(item) == "RUNNING"


@pytest.mark.postgres
async def test_an_ack_waits_for_a_run_that_begins_and_follows_it(
    http: Http, server: Server
) -> None:
    """The other way round: the run is made, but can neither see the claim nor be seen by it."""
    launch, store, done = Launch(http), server.services.store, anyio.Event()
    await launch.queue()
    item = await launch.push()
    await launch.popped_id()
    names = {"entity_name": USERNAME, "model_name": "Target", "name": "r1"}

    async def ack() -> None:
        assert await launch.ack(item, "r1")
        done.set()

    async with anyio.create_task_group() as tasks, store.write() as connection:
        await upsert_run(connection, server.request(), names)
        tasks.start_soon(ack)
        await until_it_waits(store, done)
    assert await launch.state(item) == "RUNNING"


@pytest.mark.postgres
async def test_a_run_that_speaks_while_it_is_looked_at_has_not_crashed(
    http: Http, server: Server
) -> None:
    store = server.services.store
    assert (await http.stream("r1", {})).status == 200
    later = server.request().now()
    async with store.write() as connection:
        await connection.execute(text("UPDATE runs SET heartbeat_at = now() + interval '1 hour'"))
        assert await mark_crashed(store, silent_since=later) == 0
    assert await server.rows("SELECT state FROM runs") == [("running",)]


@pytest.mark.postgres
async def test_a_pop_does_not_wait_for_another(http: Http, server: Server) -> None:
    launch, store, now = Launch(http), server.services.store, server.request().now()
    await launch.queue()
    for _ in range(2):
        await launch.push()
    with anyio.fail_after(5):
        async with store.write() as one, store.write() as other:
            popped = [
                await pop(each, queue_id=1, agent_id=None, now=now) for each in (one, other, other)
            ]
    assert [item and item.id for item in popped] == [1, 2, None]


async def test_many_agents_at_once_get_each_item_once_and_in_order(http: Http) -> None:
    launch = Launch(http)
    await launch.queue()
    pushed = [await launch.push() for _ in range(ITEMS)]
    popped: list[list[str]] = [[] for _ in range(AT_ONCE)]

    async def agent(number: int) -> None:
        while (item := await launch.popped_id()) is not None:
            popped[number].append(item)
            assert await launch.ack(item, f"run-{number}-{len(popped[number])}")

    await together(*(partial(agent, number) for number in range(AT_ONCE)))
    assert sorted(chain(*popped)) == sorted(pushed)
    place = {item: number for number, item in enumerate(pushed)}
    for mine in popped:
        assert [place[item] for item in mine] == sorted(place[item] for item in mine)


async def test_many_connections_at_once_get_each_item_once(http: Http, server: Server) -> None:
    """Stores of their own, as other servers on the same database have."""
    launch = Launch(http)
    await launch.queue()
    for _ in range(ITEMS):
        await launch.push()
    now = server.request().now()
    url = server.services.settings.database()
    stores = [Store.connect(url) for _ in range(AT_ONCE)]

    async def drain(store: Store) -> list[int]:
        taken: list[int] = []
        while True:
            async with store.write() as connection:
                item = await pop(connection, queue_id=1, agent_id=None, now=now)
            if item is None:
                return taken
            taken.append(item.id)

    taken = await together(*(partial(drain, store) for store in stores))
    for store in stores:
        await store.close()
    assert sorted(chain(*taken)) == list(range(1, ITEMS + 1))
    assert all(mine == sorted(mine) for mine in taken)
