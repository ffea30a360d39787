"""Artifacts on the wire: which version a client gets, and what a commit insists on."""

import pytest
from artifact_harness import PROJECT, ArtifactClient, b64, md5
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.ids import encode_id
from launch_async.server.users import create_api_key, create_user

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(http: Http) -> ArtifactClient:
    return ArtifactClient(http)


async def test_a_pending_artifact_is_given_again_for_its_client_id_or_digest(
    client: ArtifactClient,
) -> None:
    first = await client.create(clientID="c1")
    assert first["state"] == "PENDING"
    assert first["artifactSequence"]["latestArtifact"] is None
    assert await client.create(clientID="c1", digest="e" * 32) == first
    assert await client.create(clientID="c2") == first
    other = await client.create(clientID="c3", digest="f" * 32)
    assert other["id"] != first["id"]


async def test_the_same_digest_is_committed_once_and_gets_the_aliases(
    client: ArtifactClient,
) -> None:
    first = await client.log({"a": b"1"})
    again = await client.create(
        digest=(await client.named("data:v0"))["digest"],
        aliases=[{"artifactCollectionName": "data", "alias": "best"}],
    )
    assert (again["id"], again["state"]) == (first, "COMMITTED")
    assert again["artifactSequence"]["latestArtifact"]["id"] == first
    assert (await client.named("data:best"))["id"] == first
    other = await client.create("other", digest=(await client.named("data:v0"))["digest"])
    assert other["id"] != first, "another collection has versions of its own"


async def test_a_commit_gives_a_number_and_moves_latest(client: ArtifactClient) -> None:
    first = await client.log({"a": b"1"})
    second = await client.log({"a": b"1", "b": b"22"})
    assert [(await client.named(f"data:{n}"))["id"] for n in ("v0", "v1", "latest")] == [
        first,
        second,
        second,
    ]
    newest = await client.named("data")
    assert (newest["versionIndex"], newest["size"], newest["fileCount"]) == (1, 3, 2)
    assert (newest["ttlDurationSeconds"], newest["ttlIsInherited"]) == (-1, True)
    assert (await client.commit(second))[0] == 200, "twice does no harm"
    assert (await client.named("data:latest"))["versionIndex"] == 1
    assert await client.named("data:v7") is None


async def test_files_are_placed_in_order_and_stored_once(
    client: ArtifactClient, server: Server
) -> None:
    first = await client.log({"a": b"same", "b": b"other"})
    made = await client.create(digest="e" * 32)
    nodes = await client.place(made["id"], b"new", b"same", b"new", b"other")
    names = [node["storagePath"].rpartition("/")[2] for node in nodes]
    assert [name.partition("-")[0] for name in names] == [
        md5(body).hex() for body in (b"new", b"same", b"new", b"other")
    ]
    assert [node["uploadUrl"] is None for node in nodes] == [False, True, False, True]
    assert [node["artifact"]["id"] for node in nodes] == [made["id"], first, made["id"], first]
    assert len(await server.rows("select * from artifact_blobs where present")) == 2


async def test_wrong_bytes_are_refused_and_not_kept(client: ArtifactClient, server: Server) -> None:
    made = await client.create()
    (node,) = await client.place(made["id"], b"right")
    assert (await client.http.send("PUT", node["uploadUrl"], data=b"wrong")).status == 400
    assert await server.rows("select * from artifact_blobs where present") == []
    (again,) = await client.place(made["id"], b"right")
    assert again["uploadUrl"] is not None


async def test_a_commit_insists_on_every_file(client: ArtifactClient) -> None:
    made = await client.create()
    status, answer = await client.commit(made["id"])
    assert status == 400
    assert "no manifest yet" in answer["errors"][0]["message"]
    await client.place(made["id"], b"x")
    await client.manifest(made["id"], {"x.bin": {"digest": b64(b"x"), "size": 1}})
    status, answer = await client.commit(made["id"])
    assert status == 400
    assert "x.bin" in answer["errors"][0]["message"]
    assert await client.named("data:latest") is None


async def test_a_name_keeps_its_type(client: ArtifactClient, http: Http) -> None:
    await client.create()
    given = {"entityName": "tester", "projectName": "art", "artifactTypeName": "model"}
    given |= {"artifactCollectionName": "data", "digest": "x"}
    reply = await http.ask(client_document("CreateArtifact.core"), input=given)
    assert reply.status == 400
    assert "of type 'dataset' already" in reply.json()["errors"][0]["message"]


async def test_latest_goes_to_the_newest_that_is_left(client: ArtifactClient, http: Http) -> None:
    first = await client.log({"a": b"1"})
    second = await client.log({"a": b"2"})
    delete = client_document("DeleteArtifact.python")
    await http.data(delete, input={"artifactID": second})
    assert (await client.named("data:latest"))["id"] == first
    gone = await http.data(client_document("ArtifactByID.python"), id=second)
    assert gone["artifact"]["state"] == "DELETED"
    third = await client.log({"a": b"3"})
    assert (await client.named("data:v2"))["id"] == third, "a number is never given twice"


async def test_a_named_version_is_deleted_on_request_only(
    client: ArtifactClient, http: Http
) -> None:
    best = [{"artifactCollectionName": "data", "alias": "best"}]
    made = await client.log({"a": b"1"}, aliases=best)
    delete = client_document("DeleteArtifact.python")
    assert (await http.ask(delete, input={"artifactID": made})).status == 400
    await http.data(delete, input={"artifactID": made, "deleteAliases": True})
    assert await client.named("data:best") is None


async def test_a_files_address_works_for_members_of_that_artifact_only(
    client: ArtifactClient, http: Http, server: Server
) -> None:
    made = await client.log({"a b%.txt": b"hello"})
    other = await client.log({"z": b"zz"}, name="other")
    digest = md5(b"hello").hex()
    member = {"Authorization": f"Bearer {server.key}"}
    async with server.services.store.write() as connection:
        key = await create_api_key(connection, await create_user(connection, "stranger"))

    def address(collection: str, *ids: str) -> str:
        return f"/artifactsV2/default/tester/Art/{collection}/{'/'.join(ids)}/{digest}/a%20b%25.txt"

    for path in (
        address("data", made, made),
        address("data", made),
        f"/artifactsV2/default/tester/{made}/{digest}",
        f"/artifacts/tester/{digest}",
    ):
        got = await http.send("GET", path, headers=member)
        assert (got.status, got.body) == (200, b"hello")
        stranger = {"Authorization": f"Bearer {key}"}
        assert (await http.send("GET", path, headers=stranger)).status == 404
        assert (await http.send("GET", path)).status == 401
    assert (await http.send("GET", address("other", other, made), headers=member)).status == 404
    assert (await http.send("GET", "/artifactsV2/x/tester", headers=member)).status == 404


async def test_a_run_has_inputs_and_outputs_and_artifacts_outlive_it(
    client: ArtifactClient, http: Http
) -> None:
    for run in ("maker", "user"):
        await http.stream(run, {}, project="art")
    made = await client.log({"a": b"1"}, runName="maker")
    use = {"artifactID": made, "entityName": "tester", "projectName": "art", "runName": "user"}
    for _ in range(2):
        await http.data(client_document("UseArtifact.python"), **use)
    used_by = await http.data(client_document("ArtifactUsedBy.python"), id=made)
    assert [e["node"]["name"] for e in used_by["artifact"]["usedBy"]["edges"]] == ["user"]
    created = await http.data(client_document("ArtifactCreatedBy.python"), id=made)
    maker = created["artifact"]["createdBy"]
    assert (maker["__typename"], maker["name"]) == ("Run", "maker")
    for name, run in (("RunOutputArtifacts", "maker"), ("RunInputArtifacts", "user")):
        data = await http.data(client_document(f"{name}.python"), **PROJECT, run=run)
        assert [e["node"]["id"] for e in data["project"]["run"]["artifacts"]["edges"]] == [made]
    await http.data(client_document("DeleteRun.plain"), id=maker["id"])
    assert (await client.named("data:latest"))["id"] == made


async def test_a_stranger_reaches_no_artifact(
    client: ArtifactClient, http: Http, server: Server
) -> None:
    made = await client.log({"a": b"1"}, clientID="c1")
    async with server.services.store.write() as connection:
        key = await create_api_key(connection, await create_user(connection, "stranger"))
    by_id = await http.ask(client_document("ArtifactByID.python"), key, id=made)
    assert by_id.json() == {"data": {"artifact": None}}
    mapped = await http.ask(client_document("ClientIDMapping.core"), key, clientID="c1")
    assert mapped.json() == {"data": {"clientIDMapping": None}}
    for name, given in (
        ("DeleteArtifact.python", {"input": {"artifactID": made}}),
        ("UpdateArtifact.core", {"artifactID": made, "metadata": "{}"}),
        ("CommitArtifact.core", {"artifactID": made}),
    ):
        assert (await http.ask(client_document(name), key, **given)).status == 404


async def test_aliases_and_tags_change(client: ArtifactClient, http: Http) -> None:
    made = await client.log({"a": b"1"})
    place = {"entityName": "tester", "projectName": "art", "artifactCollectionName": "data"}
    gold = {"input": {"artifactID": made, "aliases": [{**place, "alias": "gold"}]}}
    await http.data(client_document("AddAliases.python"), **gold)
    assert (await client.named("data:gold"))["id"] == made
    await http.data(client_document("DeleteAliases.python"), **gold)
    assert await client.named("data:gold") is None
    change = {"artifactID": made, "tagsToAdd": [{"tagName": "t1"}, {"tagName": "t2"}]}
    change |= {"description": "new", "metadata": '{"k":2}'}
    await http.data(client_document("UpdateArtifact.python"), input=change)
    less = {"artifactID": made, "tagsToDelete": [{"tagName": "t1"}]}
    await http.data(client_document("UpdateArtifact.python"), input=less)
    now = await client.named("data")
    assert [tag["name"] for tag in now["tags"]] == ["t2"]
    assert (now["description"], now["metadata"]) == ("new", '{"k":2}')


async def test_a_collection_does_not_take_anothers_name(client: ArtifactClient, http: Http) -> None:
    await client.log({"a": b"1"}, "one")
    await client.log({"a": b"1"}, "two")
    (one,) = await http.server.rows("select id from artifact_collections where name = 'one'")
    rename = client_document("UpdateArtifactSequence.python")
    sequence = encode_id("ArtifactCollection", one.id)
    taken = await http.ask(rename, input={"artifactSequenceID": sequence, "name": "two"})
    assert (taken.status, "already" in taken.json()["errors"][0]["message"]) == (409, True)
    for name in ("one", "three"):
        await http.data(rename, input={"artifactSequenceID": sequence, "name": name})
    assert await client.named("three:latest") is not None


async def test_an_unfinished_version_takes_no_alias_from_a_good_one(
    client: ArtifactClient, http: Http
) -> None:
    good = await client.log({"a": b"1"})
    unfinished = (await client.create(digest="e" * 32))["id"]
    change = {"artifactID": unfinished}
    change["aliases"] = [{"artifactCollectionName": "data", "alias": "latest"}]
    reply = await http.ask(client_document("UpdateArtifact.python"), input=change)
    assert reply.status == 400
    assert (await client.named("data:latest"))["id"] == good
