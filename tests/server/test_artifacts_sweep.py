"""The sweep: what no version holds goes after a time of grace, and nothing else ever does."""

import random
from datetime import timedelta
from typing import Any

import anyio
import pytest
from artifact_harness import ArtifactClient, b64, md5
from msgspec.structs import replace
from server_harness import Http, Server
from sqlalchemy import update
from test_artifacts_parts import PARTS, Upload

from client_documents import client_document
from launch_async.server.artifact_blobs import want_blobs
from launch_async.server.artifact_sweep import Swept, sweep_once
from launch_async.server.context import utc_now
from launch_async.server.ids import decode_number, encode_id
from launch_async.server.store.tables.artifacts import artifacts
from launch_async.server.users import create_team

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
GRACE = timedelta(hours=6)
WEEK = timedelta(days=7)


@pytest.fixture
def client(http: Http) -> ArtifactClient:
    return ArtifactClient(http)


class Clock:
    """Sweeps at moments of one's choice."""

    def __init__(self, server: Server) -> None:
        self.services = server.services
        self.start = utc_now()

    async def sweep(self, after: timedelta) -> Swept:
        return await sweep_once(self.services, now=self.start + after)

    async def let_go(self, after: timedelta) -> Swept:
        """Sweep once to see what is loose, and again when the grace of that is over."""
        await self.sweep(after)
        return await self.sweep(after + GRACE + HOUR)


@pytest.fixture
def clock(server: Server) -> Clock:
    return Clock(server)


async def keys(server: Server) -> list[Any]:
    """Return the keys of all bytes that there are."""
    rows = await server.rows("select entity_id, md5, edition from artifact_blobs where present")
    found = [f"artifacts/{row.entity_id}/{row.md5}-{row.edition}" for row in rows]
    for key in found:
        assert await server.services.blobs.head(key) is not None, key
    return sorted(found)


async def test_bytes_of_a_deleted_version_go_after_the_grace(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    gone = await client.log({"only": b"1", "both": b"2"})
    kept = await client.log({"both": b"2", "new": b"3"})
    held = await keys(server)
    await client.delete(gone)
    assert (await clock.sweep(HOUR)).purged == 1
    assert await keys(server) == held, "still within the grace"
    assert (await clock.sweep(HOUR + GRACE + HOUR)).blobs == 1
    (lost,) = set(held) - set(await keys(server))
    assert md5(b"1").hex() in lost
    assert await server.services.blobs.head(lost) is None
    assert sorted(await client.entries(kept)) == ["both", "new"]
    assert await server.rows("select * from blob_garbage") == []
    again = await client.log({"only": b"1"})
    assert again != gone
    assert len(await keys(server)) == 3, "the same content comes again"


async def test_a_deleted_versions_record_stays_without_its_manifest(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    made = await client.log({"a": b"1"})
    (row,) = await server.rows("select id, artifact_id from artifact_manifests where size > 0")
    await client.delete(made)
    await clock.let_go(HOUR)
    found = await client.http.data(client_document("ArtifactByID.python"), id=made)
    assert found["artifact"]["state"] == "DELETED"
    assert await server.rows("select * from artifact_manifests") == []
    assert await server.rows("select * from artifact_files") == []
    assert await server.services.blobs.head(f"manifests/{row.artifact_id}/{row.id}") is None


async def test_what_a_version_under_way_waits_for_is_kept(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    """The client was told that the bytes are here, and will not send them."""
    first = await client.log({"a": b"same"})
    made = await client.create(digest="e" * 32)
    (node,) = await client.place(made["id"], b"same")
    assert node["uploadUrl"] is None
    await client.delete(first)
    for days in range(6):
        assert (await clock.sweep(days * 24 * HOUR)).blobs == 0
    contents = {"a": {"digest": b64(b"same"), "size": 4}}
    await client.manifest(made["id"], contents)
    assert (await client.commit(made["id"]))[0] == 200
    assert (await clock.let_go(8 * 24 * HOUR)).blobs == 0
    assert len(await keys(server)) == 1


async def test_a_version_that_is_never_committed_is_given_up(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    made = await client.create()
    contents = await client.upload(made["id"], {"a": b"1"})
    await client.manifest(made["id"], contents)
    assert (await clock.sweep(WEEK - HOUR)).given_up == 0
    assert (await clock.sweep(WEEK + HOUR)).given_up == 1
    await clock.let_go(WEEK + HOUR)
    assert await server.rows("select * from artifacts") == []
    assert await keys(server) == []
    assert (await client.commit(made["id"]))[0] == 404


async def test_an_upload_that_goes_on_is_not_given_up(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    made = await client.create()
    async with server.services.store.write() as connection:
        await connection.execute(update(artifacts).values(created_at=clock.start - WEEK))
    await client.place(made["id"], b"1")
    assert (await clock.sweep(HOUR)).given_up == 0


async def test_bytes_that_come_too_late_are_refused_and_not_kept(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    made = await client.create()
    (node,) = await client.place(made["id"], b"1")
    await clock.let_go(WEEK + HOUR)
    reply = await client.http.send("PUT", node["uploadUrl"], data=b"1")
    assert reply.status == 404
    assert await server.services.blobs.head(node["storagePath"]) is None
    other = await client.create(digest="e" * 32)
    (fresh,) = await client.place(other["id"], b"1")
    assert fresh["storagePath"] != node["storagePath"], "late bytes never meet these"


async def test_a_time_to_live_ends_a_version(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    best = [{"artifactCollectionName": "data", "alias": "best"}]
    kept = await client.log({"a": b"1"})
    short = await client.log({"a": b"2"}, ttlDurationSeconds=7200, aliases=best)
    linked = await client.log({"a": b"3"}, ttlDurationSeconds=7200)
    disabled = await client.log({"a": b"4"}, ttlDurationSeconds=-2)
    await client.link(linked, "shown")
    assert (await clock.sweep(HOUR)).expired == 0
    assert (await clock.sweep(3 * HOUR)).expired == 1
    states = await server.rows("select state from artifacts order by id")
    assert [row.state for row in states] == ["COMMITTED", "DELETED", "COMMITTED", "COMMITTED"]
    assert await client.named("data:best") is None
    for artifact in (kept, linked, disabled):
        data = await client.http.data(client_document("ArtifactByID.python"), id=artifact)
        assert data["artifact"]["state"] == "COMMITTED"
    assert short


async def test_a_time_to_live_can_be_taken_back(client: ArtifactClient, clock: Clock) -> None:
    made = await client.log({"a": b"1"}, ttlDurationSeconds=7200)
    change = client_document("UpdateArtifact.python")
    for ttl, shown in ((-2, (-2, False)), (-1, (-1, True)), (60, (60, False)), (-1, (-1, True))):
        data = await client.http.data(change, input={"artifactID": made, "ttlDurationSeconds": ttl})
        found = data["result"]["artifact"]
        assert (found["ttlDurationSeconds"], found["ttlIsInherited"]) == shown
    assert (await clock.sweep(WEEK)).expired == 0
    reply = await client.http.ask(change, input={"artifactID": made, "ttlDurationSeconds": 0})
    assert reply.status == 400


async def test_a_deleted_collection_goes_whole_and_frees_its_name(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    made = await client.log({"a": b"1"})
    other = await client.log({"a": b"2"}, name="other")
    for artifact in (other, made):
        await client.link(artifact, "shown")
    (row,) = await server.rows("select id from artifact_collections where name = 'data'")
    delete = client_document("DeleteArtifactSequence.python")
    await client.http.data(delete, id=encode_id("ArtifactCollection", row.id))
    assert await client.named("data:latest") is None
    assert (await client.member("shown:latest"))["artifact"]["id"] == other
    anew = await client.log({"a": b"9"})
    assert (await client.named("data:v0"))["id"] == anew
    await clock.let_go(HOUR)
    names = await server.rows("select name from artifact_collections order by name")
    assert [name for (name,) in names] == ["data", "other", "shown"]
    assert len(await keys(server)) == 2
    gone = await client.http.data(client_document("ArtifactByID.python"), id=made)
    assert gone["artifact"] is None


async def test_parts_of_an_upload_that_stopped_are_deleted(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    made = await client.create()
    upload = Upload(client, made["id"], PARTS)
    await upload.open()
    await upload.send(1)
    (row,) = await server.rows("select id from artifact_uploads")
    assert (await clock.sweep(23 * HOUR)).uploads == 0
    assert await server.services.blobs.head(f"parts/{row.id}/1") is not None
    assert (await clock.sweep(25 * HOUR)).uploads == 1
    assert await server.services.blobs.head(f"parts/{row.id}/1") is None
    assert (await upload.send(2)).status == 404
    assert await server.services.blobs.head(f"parts/{row.id}/2") is None


async def test_an_entity_keeps_its_own_bytes(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    """Another entity's version of the same content holds another blob."""
    async with server.services.store.write() as connection:
        await create_team(connection, "acme", admin_user_id=server.user_id)
    ours = await client.log({"a": b"1"})
    await client.log({"a": b"1"}, entityName="acme")
    assert len(await keys(server)) == 2
    await client.delete(ours)
    assert (await clock.let_go(HOUR)).blobs == 1
    (left,) = await keys(server)
    assert left.startswith("artifacts/2/")


async def test_nothing_that_is_committed_ever_lacks_a_byte(
    client: ArtifactClient, server: Server
) -> None:
    """Sweeps without any grace run while contents are logged and deleted again and again."""
    settings = replace(server.services.settings, artifact_grace_seconds=0.0)
    hasty = replace(server.services, settings=settings)
    finished = anyio.Event()

    async def sweep() -> None:
        while not finished.is_set():
            await sweep_once(hasty, now=utc_now())

    async def work(name: str, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - a test's own dice
        for turn in range(6):
            files = {str(n): bytes([n]) * 10 for n in dice.sample(range(8), 4)}
            files["turn"] = f"{name}{turn}".encode()
            made = await client.log(files, name=name)
            for file, entry in (await client.entries(made)).items():
                address = f"/artifacts/tester/{md5(files[file]).hex()}"
                reply = await client.http.send(
                    "GET", address, headers={"Authorization": f"Bearer {server.key}"}
                )
                assert (reply.status, reply.body) == (200, files[file]), entry
            if dice.random() < 0.8:
                await client.delete(made)

    async with anyio.create_task_group() as sweepers:
        sweepers.start_soon(sweep)
        sweepers.start_soon(sweep)
        async with anyio.create_task_group() as workers:
            for number in range(4):
                workers.start_soon(work, f"w{number}", number)
        finished.set()
    await keys(server)


async def test_a_content_that_is_wanted_at_this_moment_is_left_alone(
    client: ArtifactClient, server: Server, clock: Clock
) -> None:
    """On PostgreSQL both transactions run at once; on SQLite the sweep waits for the other."""
    first = await client.log({"a": b"1"})
    made = await client.create(digest="e" * 32)
    await client.delete(first)
    await clock.sweep(HOUR)
    swept = anyio.Event()

    async def sweep() -> None:
        await clock.sweep(HOUR + GRACE + HOUR)
        swept.set()

    store = server.services.store
    async with anyio.create_task_group() as tasks, store.write() as connection:
        (blob,) = await want_blobs(
            connection,
            1,
            decode_number(made["id"], "Artifact"),
            [md5(b"1").hex()],
            now=clock.start + HOUR + GRACE + HOUR,
        )
        tasks.start_soon(sweep)
        if store.dialect == "postgresql":
            with anyio.move_on_after(5):
                await swept.wait()
    assert blob.present
    assert await keys(server) == [blob.key]
