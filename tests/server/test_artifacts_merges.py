"""Versions that add to others, and versions that several runs make together."""

import hashlib
from typing import Any

import pytest
from artifact_harness import ArtifactClient, said
from server_harness import Http, Server

from client_documents import client_document

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(http: Http) -> ArtifactClient:
    return ArtifactClient(http)


async def test_an_addition_holds_what_its_base_holds_and_more(client: ArtifactClient) -> None:
    base = await client.log({"a": b"1", "b": b"old"})
    made = await add_to(client, base, {"b": b"new", "c": b"3"})
    found = await client.named("data:latest")
    assert (found["id"], found["versionIndex"]) == (made, 1)
    assert (found["fileCount"], found["size"]) == (3, 5)
    entries = await client.entries(made)
    assert sorted(entries) == ["a", "b", "c"]
    assert found["digest"] == digest_of(entries)
    assert entries["a"]["birthArtifactID"] == base
    assert await file_names(client, "v1") == ["a", "b", "c"]


async def test_the_first_version_may_be_an_addition(client: ArtifactClient) -> None:
    made = await add_to(client, None, {"a": b"1"})
    assert sorted(await client.entries(made)) == ["a"]


async def test_an_addition_to_what_was_deleted_is_refused(
    client: ArtifactClient, server: Server
) -> None:
    base = await client.log({"a": b"1"})
    made = await client.create(digest="e" * 32)
    contents = await client.upload(made["id"], {"b": b"2"})
    await client.manifest(made["id"], contents, "INCREMENTAL", base)
    await client.delete(base)
    status, answer = await client.commit(made["id"])
    assert (status, "was deleted" in answer["errors"][0]["message"]) == (400, True)
    assert await server.rows("select * from artifacts where state = 'COMMITTED'") == []


async def test_runs_that_share_an_id_make_one_version(client: ArtifactClient) -> None:
    together = {"distributedID": "d1"}
    first = await client.create(digest="1" * 32, clientID="c1", **together)
    second = await client.create(digest="2" * 32, clientID="c2", **together)
    assert first["id"] == second["id"]
    for files in ({"a": b"1", "same": b"old"}, {"b": b"2", "same": b"new"}):
        contents = await client.upload(first["id"], files)
        assert await client.manifest(first["id"], contents, "PATCH") == 200
    assert await client.named("data:latest") is None, "nobody has finished it"
    third = await client.create(digest="3" * 32, clientID="c3", **together)
    contents = await client.upload(first["id"], {"c": b"3"})
    await client.manifest(third["id"], contents, "PATCH")
    assert (await client.commit(third["id"]))[0] == 200
    entries = await client.entries(first["id"])
    assert sorted(entries) == ["a", "b", "c", "same"]
    assert entries["same"]["size"] == 3
    fourth = await client.create(digest="4" * 32, clientID="c4", **together)
    assert fourth["id"] != first["id"], "what is finished is not appended to"


async def test_a_shared_version_is_not_taken_for_another_upload_of_the_same_digest(
    client: ArtifactClient,
) -> None:
    shared = await client.create(digest="1" * 32, clientID="c1", distributedID="d1")
    alone = await client.create(digest="1" * 32, clientID="c2")
    other = await client.create(digest="1" * 32, clientID="c3", distributedID="d2")
    assert len({shared["id"], alone["id"], other["id"]}) == 3


async def test_a_file_that_never_came_leaves_no_merged_manifest(
    client: ArtifactClient, server: Server
) -> None:
    base = await client.log({"a": b"1"})
    made = await client.create(digest="e" * 32)
    contents = {"b": {"digest": "1B2M2Y8AsgTpgAmY7PhCfg==", "size": 0}}
    await client.place(made["id"], b"")
    await client.manifest(made["id"], contents, "INCREMENTAL", base)
    status, answer = await client.commit(made["id"])
    assert (status, "not uploaded" in answer["errors"][0]["message"]) == (400, True)
    count = "select count(*) from artifact_manifests where size is null and digest != ''"
    assert await server.rows(count) == [(0,)]
    assert len(await server.rows("select * from blob_garbage")) == 1


async def test_a_manifest_that_says_another_size_is_refused(
    client: ArtifactClient, http: Http
) -> None:
    made = await client.create()
    contents = await client.upload(made["id"], {"a": b"12345"})
    contents["a"]["size"] = 4
    await client.manifest(made["id"], contents)
    reply = await http.ask(client_document("CommitArtifact.core"), artifactID=made["id"])
    assert (reply.status, "has 4 bytes, and 5 were uploaded" in said(reply)) == (400, True)


async def add_to(client: ArtifactClient, base: str | None, files: dict[str, bytes]) -> str:
    digest = hashlib.md5(repr(files).encode(), usedforsecurity=False).hexdigest()
    made = await client.create(digest=digest)
    contents = await client.upload(made["id"], files)
    assert await client.manifest(made["id"], contents, "INCREMENTAL", base) == 200
    status, answer = await client.commit(made["id"])
    assert status == 200, answer
    return made["id"]


def digest_of(entries: dict[str, Any]) -> str:
    """Return the digest of a version as the client's ArtifactManifestV1 computes it."""
    md5 = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
    for name in sorted(entries):
        md5.update(f"{name}:{entries[name]['digest']}\n".encode())
    return md5.hexdigest()


async def file_names(client: ArtifactClient, alias: str) -> list[str]:
    data = await client.http.data(
        client_document("GetArtifactMembershipFileUrls.python"),
        entity="tester",
        project="art",
        collection="data",
        alias=alias,
    )
    files = data["project"]["artifactCollection"]["artifactMembership"]["files"]["edges"]
    return [edge["node"]["name"] for edge in files]
