"""Clients that log at once, through two servers on one database."""

from collections.abc import AsyncGenerator

import anyio
import msgspec
import pytest
from artifact_harness import ArtifactClient
from server_harness import Http, Server

from launch_async.server.app import listening
from launch_async.server.store import Store

pytestmark = pytest.mark.anyio

CLIENTS = 8


@pytest.fixture
async def clients(http: Http, server: Server) -> AsyncGenerator[list[ArtifactClient]]:
    """Clients of either of two servers, in turn."""
    store = Store.connect(server.services.settings.database())
    services = msgspec.structs.replace(server.services, store=store)
    try:
        async with listening(services, services.settings) as url:
            other = msgspec.structs.replace(http, server=msgspec.structs.replace(server, url=url))
            yield [ArtifactClient((http, other)[number % 2]) for number in range(CLIENTS)]
    finally:
        await store.close()


async def test_the_same_content_makes_one_version(
    clients: list[ArtifactClient], server: Server
) -> None:
    rounds = 5
    made: list[set[str]] = [set() for _ in range(rounds)]

    async def log(client: ArtifactClient, number: int, turn: int) -> None:
        made[turn].add(await client.log({"a": str(turn).encode()}, clientID=f"{number}-{turn}"))

    for turn in range(rounds):
        async with anyio.create_task_group() as tasks:
            for number, client in enumerate(clients):
                tasks.start_soon(log, client, number, turn)
    assert [len(each) for each in made] == [1] * rounds
    versions = "select state, version_index from artifacts order by id"
    assert await server.rows(versions) == [("COMMITTED", turn) for turn in range(rounds)]


async def test_a_creation_that_is_sent_again_makes_one_version(
    clients: list[ArtifactClient],
) -> None:
    await clients[0].create(clientID="before", digest="f" * 32)
    made: set[str] = set()

    async def create(client: ArtifactClient, number: int) -> None:
        digest = f"{number:032x}"
        made.add((await client.create(clientID="the same", digest=digest))["id"])

    async with anyio.create_task_group() as tasks:
        for number, client in enumerate(clients):
            tasks.start_soon(create, client, number)
    assert len(made) == 1


async def test_versions_of_one_collection_are_numbered_without_gaps(
    clients: list[ArtifactClient], server: Server
) -> None:
    rounds = 3

    async def log(client: ArtifactClient, number: int) -> None:
        for turn in range(rounds):
            content = f"{number}-{turn}".encode()
            made = await client.log({"a": content, "same": b"x"}, clientID=content.decode())
            await client.link(made, "shown")

    async with anyio.create_task_group() as tasks:
        for number, client in enumerate(clients):
            tasks.start_soon(log, client, number)
    for table in ("artifacts", "artifact_links"):
        rows = await server.rows(f"select version_index from {table} order by 1")  # noqa: S608
        assert [row.version_index for row in rows] == list(range(CLIENTS * rounds))
    assert (await clients[0].named("data:latest"))["versionIndex"] == CLIENTS * rounds - 1
    assert (await clients[0].member("shown:latest")) is not None
    latest = "select collection_id, count(*) c from artifact_aliases group by collection_id"
    assert [row.c for row in await server.rows(latest)] == [1, 1]


async def test_versions_come_and_go_and_latest_is_always_one_that_is_left(
    clients: list[ArtifactClient], server: Server
) -> None:
    async def log_and_delete(client: ArtifactClient, number: int) -> None:
        for turn in range(3):
            made = await client.log({"a": f"{number}-{turn}".encode()})
            await client.link(made, "shown")
            if turn != 1:
                await client.delete(made)

    async with anyio.create_task_group() as tasks:
        for number, client in enumerate(clients):
            tasks.start_soon(log_and_delete, client, number)
    left = await server.rows(
        "select a.version_index own, l.version_index linked from artifacts a "
        "join artifact_links l on l.artifact_id = a.id where a.state = 'COMMITTED'"
    )
    assert len(left) == CLIENTS
    for name, column in (("data:latest", "own"), ("shown:latest", "linked")):
        found = await clients[0].member(name)
        assert found["versionIndex"] == max(getattr(row, column) for row in left)


async def test_parts_of_one_version_are_merged_whoever_finishes_it(
    clients: list[ArtifactClient], server: Server
) -> None:
    statuses: list[int] = []
    ids: set[str] = set()

    async def contribute(client: ArtifactClient, number: int) -> None:
        made = await client.create(
            digest=f"{number:032x}", clientID=f"c{number}", distributedID="together"
        )
        ids.add(made["id"])
        contents = await client.upload(made["id"], {f"f{number}": str(number).encode()})
        assert await client.manifest(made["id"], contents, "PATCH") == 200

    async def finish(client: ArtifactClient) -> None:
        (artifact,) = ids
        statuses.append((await client.commit(artifact))[0])

    async with anyio.create_task_group() as tasks:
        for number, client in enumerate(clients):
            tasks.start_soon(contribute, client, number)
    async with anyio.create_task_group() as tasks:
        for client in clients:
            tasks.start_soon(finish, client)
    assert statuses == [200] * CLIENTS
    (artifact,) = ids
    assert sorted(await clients[0].entries(artifact)) == [f"f{n}" for n in range(CLIENTS)]
    assert await server.rows("select version_index from artifacts") == [(0,)]
