"""What an upload address can still do a day later: nothing to bytes that others count on."""

import io
import json

import anyio
import pytest
from artifact_harness import PROJECT, ArtifactClient, b64, md5
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.artifact_blobs import blob_key
from launch_async.server.ids import encode_run_id

pytestmark = pytest.mark.anyio

MANIFEST_URL = """
query($id: ID!) { artifact(id: $id) { currentManifest { file { directUrl } } } }
"""


@pytest.fixture
def client(http: Http) -> ArtifactClient:
    return ArtifactClient(http)


async def blob(client: ArtifactClient, body: bytes) -> bytes | None:
    (row,) = await client.http.server.rows(
        "select entity_id, md5, edition from artifact_blobs where md5 = :md5", md5=md5(body).hex()
    )
    found = client.http.server.services.blobs
    path = blob_key(*row)
    if await found.head(path) is None:
        return None
    return b"".join([chunk async for chunk in await found.get(path)])


@pytest.mark.parametrize("size", [1, 12 * 1024 * 1024])
async def test_wrong_bytes_never_take_the_place_of_right_ones(
    client: ArtifactClient, server: Server, size: int
) -> None:
    right = b"r" * size
    made = await client.create()
    (node,) = await client.place(made["id"], right)
    wrong = await client.http.send("PUT", node["uploadUrl"], data=io.BytesIO(b"w" * size))
    assert wrong.status == 400
    assert await blob(client, right) is None
    assert (await client.http.send("PUT", node["uploadUrl"], data=io.BytesIO(right))).status == 200
    await client.http.send("PUT", node["uploadUrl"], data=io.BytesIO(b"w" * size))
    assert await blob(client, right) == right
    assert len(await server.rows("select * from artifact_blobs where present")) == 1


async def test_a_committed_versions_manifest_never_changes(client: ArtifactClient) -> None:
    made = await client.create()
    (node,) = await client.place(made["id"], b"x")
    await client.http.send("PUT", node["uploadUrl"], data=b"x")
    contents = {"x": {"digest": b64(b"x"), "size": 1}}
    first, body = await client.manifest_slot(made["id"], contents)
    other, evil = await client.manifest_slot(made["id"], {"evil": contents["x"]})
    assert (await client.http.send("PUT", first, data=evil)).status == 400
    assert (await client.http.send("PUT", first, data=body)).status == 200
    assert (await client.commit(made["id"]))[0] == 200
    for url in (first, other):
        assert (await client.http.send("PUT", url, data=evil)).status in {200, 400}
    data = await client.http.data(MANIFEST_URL, id=made["id"])
    url = data["artifact"]["currentManifest"]["file"]["directUrl"]
    assert json.loads((await client.http.send("GET", url)).body)["contents"] == contents


async def test_two_runs_that_log_the_same_bytes_at_once_both_succeed(
    client: ArtifactClient,
) -> None:
    one = await client.create(clientID="c1")
    two = await client.create(clientID="c2")
    assert one["id"] == two["id"]
    (node,) = await client.place(one["id"], b"x")
    await client.http.send("PUT", node["uploadUrl"], data=b"x")
    contents = {"x": {"digest": b64(b"x"), "size": 1}}
    assert await client.manifest(one["id"], contents) == 200
    assert (await client.commit(one["id"]))[0] == 200
    (late,) = await client.place(two["id"], b"x")
    assert late["uploadUrl"] is None
    assert await client.manifest(two["id"], {"x": contents["x"] | {"local_path": "b"}}) == 200
    assert (await client.commit(two["id"]))[0] == 200
    assert (await client.named("data:latest"))["versionIndex"] == 0


async def test_commits_at_once_give_one_number(client: ArtifactClient, server: Server) -> None:
    made = await client.create()
    (node,) = await client.place(made["id"], b"x")
    await client.http.send("PUT", node["uploadUrl"], data=b"x")
    await client.manifest(made["id"], {"x": {"digest": b64(b"x"), "size": 1}})
    statuses: list[int] = []

    async def commit() -> None:
        statuses.append((await client.commit(made["id"]))[0])

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(commit)
    assert statuses == [200] * 8
    assert await server.rows("select next_version from artifact_collections") == [(1,)]
    assert len(await server.rows("select * from artifact_files")) == 1


async def test_a_manifest_without_a_digest_has_no_address(client: ArtifactClient) -> None:
    made = await client.create()
    data = await client.http.data(
        client_document("CreateArtifactManifest.core"),
        entityName="tester",
        projectName="art",
        artifactID=made["id"],
        name="wandb_manifest.json",
        digest="",
        runName="r1",
        manifestType="FULL",
        includeUpload=True,
    )
    assert data["createArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"] is None


async def test_what_comes_for_a_deleted_run_is_not_kept(http: Http, server: Server) -> None:
    await http.stream("r1", {})
    made = await http.data(
        client_document("CreateRunFiles.core"),
        entity="tester",
        project="proj",
        run="r1",
        files=["x"],
    )
    (file,) = made["createRunFiles"]["files"]
    await http.data(client_document("DeleteRun.plain"), id=encode_run_id("r1", "proj", "tester"))
    reply = await http.send("PUT", file["uploadUrl"], data=b"late")
    assert (reply.status, "deleted" in reply.json()["error"]) == (404, True)
    assert not list((server.services.settings.data_dir / "blobs").rglob("runs/*/*"))


async def test_packed_bytes_are_refused(http: Http) -> None:
    await http.stream("r1", {})
    made = await http.data(
        client_document("CreateRunFiles.core"),
        entity="tester",
        project="proj",
        run="r1",
        files=["x"],
    )
    (file,) = made["createRunFiles"]["files"]
    packed = {"Content-Encoding": "gzip"}
    assert (await http.send("PUT", file["uploadUrl"], data=b"x", headers=packed)).status == 415


async def test_references_are_listed_with_their_own_addresses(client: ArtifactClient) -> None:
    made = await client.create()
    contents = {
        "far": {"digest": "etag", "size": 7, "ref": "s3://bucket/far"},
        "odd": {"digest": "https://example.com/odd", "ref": "https://example.com/odd"},
    }
    assert await client.manifest(made["id"], contents) == 200
    assert (await client.commit(made["id"]))[0] == 200
    data = await client.http.data(
        client_document("GetArtifactMembershipFileUrls.python"),
        **PROJECT,
        collection="data",
        alias="v0",
        perPage=5000,
    )
    found = data["project"]["artifactCollection"]["artifactMembership"]["files"]["edges"]
    assert {edge["node"]["name"]: edge["node"]["directUrl"] for edge in found} == {
        "far": "s3://bucket/far",
        "odd": "https://example.com/odd",
    }


async def test_files_by_manifest_entries_come_on_one_page(client: ArtifactClient) -> None:
    made = await client.create()
    contents = {f"f{n}": {"digest": "d", "ref": f"s3://b/{n}"} for n in range(1100)}
    assert await client.manifest(made["id"], contents) == 200
    assert (await client.commit(made["id"]))[0] == 200
    data = await client.http.data(
        """query($id: ID!, $entries: [ArtifactManifestEntryInput!]) { artifact(id: $id) {
        filesByManifestEntries(storageLayout: "V2", manifestVersion: "1", entries: $entries) {
          pageInfo { hasNextPage } edges { node { name } } } } }""",
        id=made["id"],
        entries=[{"name": name} for name in contents],
    )
    page = data["artifact"]["filesByManifestEntries"]
    assert page["pageInfo"]["hasNextPage"] is False
    assert {edge["node"]["name"] for edge in page["edges"]} == set(contents)
