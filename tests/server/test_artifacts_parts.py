"""Uploads in parts, as the client sends files of 2 GiB and more."""

import base64
from typing import Any

import anyio
import pytest
from artifact_harness import ArtifactClient, b64, md5, said
from server_harness import Http, Reply, Server
from sqlalchemy import update

from client_documents import client_document
from launch_async.server.context import utc_now
from launch_async.server.store.tables.artifacts import artifact_uploads

pytestmark = pytest.mark.anyio

PARTS = [b"a" * 300_000, b"b" * 300_000, b"c" * 100_000]
WHOLE = b"".join(PARTS)
DONE = "select present, size from artifact_blobs"


@pytest.fixture
def client(http: Http) -> ArtifactClient:
    return ArtifactClient(http)


class Upload:
    """One file in parts, sent in the client's words."""

    def __init__(self, client: ArtifactClient, artifact: str, parts: list[bytes]) -> None:
        self.http = client.http
        self.artifact = artifact
        self.parts = parts
        self.node: dict[str, Any] = {}

    async def open(self, **changes: Any) -> Reply:
        offered = [{"partNumber": n, "hexMD5": md5(part).hex()} for n, part in self.numbered()]
        spec = {"artifactID": self.artifact, "name": "big", "md5": b64(b"".join(self.parts))}
        spec |= {"uploadPartsInput": offered} | changes
        reply = await self.http.ask(
            client_document("CreateArtifactFiles.core"),
            input={"artifactFiles": [spec], "storageLayout": "V2"},
        )
        if reply.status == 200:
            (edge,) = reply.json()["data"]["createArtifactFiles"]["files"]["edges"]
            self.node = edge["node"]
        return reply

    def numbered(self) -> list[tuple[int, bytes]]:
        return list(enumerate(self.parts, 1))

    async def send(self, number: int, body: bytes | None = None) -> Reply:
        part = self.parts[number - 1] if body is None else body
        (url,) = [
            each["uploadUrl"]
            for each in self.node["uploadMultipartUrls"]["uploadUrlParts"]
            if each["partNumber"] == number
        ]
        headers = {"Content-MD5": base64.b64encode(md5(part)).decode(), "Content-Type": ""}
        return await self.http.send("PUT", url, data=part, headers=headers)

    async def complete(self, etags: dict[int, str]) -> Reply:
        return await self.http.ask(
            client_document("CompleteMultipartUploadArtifact.core"),
            completeMultipartAction="Complete",
            completedParts=[{"partNumber": n, "hexMD5": etag} for n, etag in etags.items()],
            artifactID=self.node["artifact"]["id"],
            storagePath=self.node["storagePath"],
            uploadID=self.node["uploadMultipartUrls"]["uploadID"],
        )


@pytest.fixture
async def upload(client: ArtifactClient) -> Upload:
    made = await client.create()
    upload = Upload(client, made["id"], PARTS)
    assert (await upload.open()).status == 200
    return upload


def etags_of(parts: list[bytes]) -> dict[int, str]:
    return {n: f'"{md5(part).hex()}"' for n, part in enumerate(parts, 1)}


async def test_parts_in_any_order_become_one_blob(
    upload: Upload, client: ArtifactClient, server: Server
) -> None:
    etags = {}
    for number in (3, 1, 2):
        reply = await upload.send(number)
        assert reply.status == 200
        etags[number] = reply.headers["ETag"]
    done = await upload.complete(etags)
    assert done.json()["data"]["completeMultipartUploadArtifact"]["digest"] == b64(WHOLE)
    contents = {"big": {"digest": b64(WHOLE), "size": len(WHOLE)}}
    assert await client.manifest(upload.artifact, contents) == 200
    assert (await client.commit(upload.artifact))[0] == 200
    data = await client.http.data(
        client_document("GetArtifactMembershipFileUrls.python"),
        entity="tester",
        project="art",
        collection="data",
        alias="v0",
    )
    files = data["project"]["artifactCollection"]["artifactMembership"]["files"]["edges"]
    assert (await client.http.send("GET", files[0]["node"]["directUrl"])).body == WHOLE
    assert await server.rows("select * from artifact_uploads") == []
    assert await server.rows("select * from artifact_upload_parts") == []
    assert await server.rows("select * from blob_garbage") == [], "the parts' bytes are gone"


async def test_completing_twice_does_no_harm(upload: Upload, server: Server) -> None:
    for number in (1, 2, 3):
        await upload.send(number)
    for _ in range(2):
        assert (await upload.complete(etags_of(PARTS))).status == 200
    assert await server.rows(DONE) == [(True, len(WHOLE))]


async def test_a_part_with_other_bytes_is_refused(upload: Upload, server: Server) -> None:
    reply = await upload.send(1, b"z" * 300_000)
    assert reply.status == 400
    assert "belongs here" in said(reply)
    sizes = "select size from artifact_upload_parts order by number"
    assert await server.rows(sizes) == [(None,)] * 3


async def test_a_body_that_is_not_what_its_header_says_is_refused(upload: Upload) -> None:
    url = upload.node["uploadMultipartUrls"]["uploadUrlParts"][0]["uploadUrl"]
    headers = {"Content-MD5": base64.b64encode(md5(PARTS[0])).decode()}
    reply = await upload.http.send("PUT", url, data=b"other", headers=headers)
    assert reply.status == 400
    headers = {"Content-MD5": "nonsense"}
    reply = await upload.http.send("PUT", url, data=PARTS[0], headers=headers)
    assert (reply.status, said(reply)) == (400, "Content-MD5 is an MD5 in base64")


async def test_an_upload_goes_on_where_it_broke_off(upload: Upload, client: ArtifactClient) -> None:
    await upload.send(1)
    again = Upload(client, upload.artifact, PARTS)
    await again.open()
    first, second = (each.node["uploadMultipartUrls"]["uploadID"] for each in (upload, again))
    assert first == second
    repeated = await again.send(1)
    assert repeated.headers["ETag"] == etags_of(PARTS)[1], "also of a part that is here already"
    await again.send(2)
    await again.send(3)
    assert (await again.complete(etags_of(PARTS))).status == 200


@pytest.mark.parametrize(
    ("etags", "refusal"),
    [
        (etags_of(PARTS[:2]), "not the parts that the upload was opened for"),
        (etags_of([*PARTS[:2], b"x"]), "not the parts that the upload was opened for"),
        ({1: "x", 2: "y", 3: "z"}, "is not the MD5 of a part in hex"),
        ({}, "numbered from 1"),
        (etags_of(PARTS), "part 3 of this file was not uploaded"),
    ],
)
async def test_what_is_not_whole_is_not_completed(
    upload: Upload, server: Server, etags: dict[int, str], refusal: str
) -> None:
    await upload.send(1)
    await upload.send(2)
    reply = await upload.complete(etags)
    assert (reply.status, refusal in said(reply)) == (400, True), said(reply)
    assert await server.rows(DONE) == [(False, None)]


@pytest.mark.parametrize(
    "offered",
    [
        [{"partNumber": 2, "hexMD5": "0" * 32}],
        [{"partNumber": 1, "hexMD5": "no"}],
        [{"partNumber": n, "hexMD5": "0" * 32} for n in range(1, 10_002)],
    ],
    ids=["not from 1", "no MD5", "too many"],
)
async def test_parts_that_cannot_be_are_refused(
    client: ArtifactClient, offered: list[dict[str, Any]]
) -> None:
    made = await client.create()
    upload = Upload(client, made["id"], PARTS)
    assert (await upload.open(uploadPartsInput=offered)).status == 400


async def test_parts_that_do_not_make_up_the_whole_start_anew(
    client: ArtifactClient, server: Server
) -> None:
    made = await client.create()
    upload = Upload(client, made["id"], PARTS)
    await upload.open(md5=b64(b"another content"))
    for number in (1, 2, 3):
        await upload.send(number)
    reply = await upload.complete(etags_of(PARTS))
    assert (reply.status, "the upload has the MD5" in said(reply)) == (400, True)
    assert await server.rows("select * from artifact_uploads") == []
    assert await server.rows(DONE) == [(False, None)]
    assert (await upload.send(1)).status == 404


async def test_who_comes_while_parts_are_joined_is_to_ask_again(
    upload: Upload, server: Server
) -> None:
    """The client waits 30 s for an answer and comes back for 16 minutes; a 429 is asked again."""
    for number in (1, 2, 3):
        await upload.send(number)
    await _say(server, utc_now())
    reply = await upload.complete(etags_of(PARTS))
    assert (reply.status, "ask again" in said(reply)) == (429, True)
    await _say(server, None)
    async with anyio.create_task_group() as tasks:
        statuses: list[int] = []

        async def complete() -> None:
            statuses.append((await upload.complete(etags_of(PARTS))).status)

        for _ in range(4):
            tasks.start_soon(complete)
    assert 200 in statuses
    assert set(statuses) <= {200, 429}
    assert await server.rows(DONE) == [(True, len(WHOLE))]


async def test_a_content_that_is_here_is_not_asked_for_in_parts(
    client: ArtifactClient, upload: Upload
) -> None:
    (node,) = await client.place(upload.artifact, WHOLE)
    await client.http.send("PUT", node["uploadUrl"], data=WHOLE)
    await upload.open()
    assert (upload.node["uploadUrl"], upload.node["uploadMultipartUrls"]) == (None, None)


async def test_a_path_of_no_blob_is_not_completed(upload: Upload) -> None:
    for path in ("", "x", "artifacts/x/y", "runs/1/1", f"artifacts/1/{'0' * 32}"):
        upload.node["storagePath"] = path
        assert (await upload.complete(etags_of(PARTS))).status == 404


async def _say(server: Server, moment: Any) -> None:
    async with server.services.store.write() as connection:
        await connection.execute(update(artifact_uploads).values(joining_since=moment))
