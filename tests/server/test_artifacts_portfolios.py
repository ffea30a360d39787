"""Portfolios: versions linked from other collections, under numbers and aliases of their own."""

from typing import Any

import pytest
from artifact_harness import PLACE, PROJECT, ArtifactClient, md5, said
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.access import Role
from launch_async.server.people import set_member
from launch_async.server.users import create_team

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(http: Http) -> ArtifactClient:
    return ArtifactClient(http)


async def test_a_link_has_a_number_and_aliases_of_its_own(client: ArtifactClient) -> None:
    first = await client.log({"a": b"1"}, aliases=_aliases("data", "best"))
    second = await client.log({"a": b"2"})
    assert (await client.link(second, "shown", "prod"))["versionIndex"] == 0
    assert (await client.link(first, "shown"))["versionIndex"] == 1
    found = await client.member("shown:prod")
    assert (found["versionIndex"], found["artifact"]["versionIndex"]) == (0, 1)
    assert [alias["alias"] for alias in found["aliases"]] == ["prod"]
    newest = await client.member("shown:latest")
    assert newest["artifact"]["id"] == first, "the version that was linked last"
    assert newest["artifactCollection"]["__typename"] == "ArtifactPortfolio"
    assert await client.member("shown:best") is None, "an alias of its sequence only"
    assert await client.member("data:prod") is None


async def test_a_second_link_adds_aliases_and_moves_latest(client: ArtifactClient) -> None:
    first = await client.log({"a": b"1"})
    second = await client.log({"a": b"2"})
    for artifact in (first, second):
        await client.link(artifact, "shown")
    again = await client.link(first, "shown", "prod")
    assert again["versionIndex"] == 0
    assert {alias["alias"] for alias in again["aliases"]} == {"latest", "prod"}


async def test_aliases_change_in_the_collection_that_is_named(
    client: ArtifactClient, http: Http
) -> None:
    made = await client.log({"a": b"1"})
    await client.link(made, "shown")
    for name, collection in (("here", "shown"), ("there", "data")):
        alias = {**PLACE, "artifactCollectionName": collection, "alias": name}
        add = {"artifactID": made, "aliases": [alias]}
        await http.data(client_document("AddAliases.python"), input=add)
    assert (await client.member("shown:here"))["artifact"]["id"] == made
    assert await client.member("shown:there") is None
    alias = {**PLACE, "artifactCollectionName": "elsewhere", "alias": "x"}
    reply = await http.ask(
        client_document("AddAliases.python"), input={"artifactID": made, "aliases": [alias]}
    )
    assert (reply.status, "not in 'elsewhere'" in said(reply)) == (400, True)
    await http.data(
        client_document("DeleteAliases.python"),
        input={
            "artifactID": made,
            "aliases": [{**PLACE, "artifactCollectionName": "shown", "alias": "latest"}],
        },
    )
    assert await client.member("shown:latest") is None
    assert await client.member("data:latest") is not None


async def test_what_is_unlinked_leaves_latest_to_the_newest_that_is_left(
    client: ArtifactClient, http: Http
) -> None:
    first = await client.log({"a": b"1"})
    second = await client.log({"a": b"2"})
    await client.link(first, "shown")
    await client.link(second, "shown", "prod")
    portfolio = await _collection(http, "shown")
    unlink = client_document("UnlinkArtifact.python")
    given = {"artifactID": second, "artifactPortfolioID": portfolio["id"]}
    await http.data(unlink, input=given)
    assert (await client.member("shown:latest"))["artifact"]["id"] == first
    assert await client.member("shown:prod") is None
    assert (await client.named("data:v1"))["id"] == second
    assert (await http.ask(unlink, input=given)).status == 404
    assert (await client.link(second, "shown"))["versionIndex"] == 2, "no number comes twice"


async def test_a_deleted_version_leaves_its_portfolios(client: ArtifactClient) -> None:
    first = await client.log({"a": b"1"})
    second = await client.log({"a": b"2"})
    for artifact in (first, second):
        await client.link(artifact, "shown")
    await client.delete(second)
    assert (await client.member("shown:latest"))["artifact"]["id"] == first
    assert await client.member("shown:v1") is None


async def test_a_link_to_a_version_under_way_takes_effect_with_its_commit(
    client: ArtifactClient,
) -> None:
    first = await client.log({"a": b"1"})
    await client.link(first, "shown")
    made = await client.create(clientID="c1", digest="e" * 32)
    link = {"artifactID": None, "clientID": "c1"}
    assert await client.link(made["id"], "shown", "prod", **link) is None
    assert (await client.member("shown:latest"))["artifact"]["id"] == first
    assert await client.member("shown:prod") is None
    contents = await client.upload(made["id"], {"a": b"2"})
    await client.manifest(made["id"], contents)
    assert (await client.commit(made["id"]))[0] == 200
    found = await client.member("shown:prod")
    assert (found["artifact"]["id"], found["versionIndex"]) == (made["id"], 1)
    assert (await client.member("shown:latest"))["versionIndex"] == 1


async def test_a_version_knows_the_portfolios_that_link_it(
    client: ArtifactClient, http: Http
) -> None:
    made = await client.log({"a": b"1"})
    await client.link(made, "one")
    await client.link(made, "two", "prod")
    ask = client_document("FetchLinkedArtifacts.python")
    data = await http.data(ask, artifactID=made)
    nodes = [edge["node"] for edge in data["artifact"]["artifactMemberships"]["edges"]]
    assert [
        (node["artifactCollection"]["__typename"], node["artifactCollection"]["name"])
        for node in nodes
    ] == [
        ("ArtifactSequence", "data"),
        ("ArtifactPortfolio", "one"),
        ("ArtifactPortfolio", "two"),
    ]
    assert {alias["alias"] for alias in nodes[2]["aliases"]} == {"prod", "latest"}


async def test_files_are_served_by_the_portfolios_name_too(
    client: ArtifactClient, http: Http, server: Server
) -> None:
    made = await client.log({"a": b"hello"})
    await client.link(made, "shown")
    data = await http.data(
        client_document("GetArtifactMembershipFileUrls.python"),
        **PROJECT,
        collection="shown",
        alias="v0",
    )
    files = data["project"]["artifactCollection"]["artifactMembership"]["files"]["edges"]
    assert (await http.send("GET", files[0]["node"]["directUrl"])).body == b"hello"
    address = f"/artifactsV2/default/tester/art/{{}}/{made}/{md5(b'hello').hex()}/a"
    key = {"Authorization": f"Bearer {server.key}"}
    assert (await http.send("GET", address.format("shown"), headers=key)).body == b"hello"
    assert (await http.send("GET", address.format("hidden"), headers=key)).status == 404


async def test_a_name_is_a_sequence_or_a_portfolio(client: ArtifactClient, http: Http) -> None:
    made = await client.log({"a": b"1"})
    await client.link(made, "shown")
    given = {"artifactID": made, "artifactPortfolioName": "data", **PLACE}
    reply = await http.ask(client_document("LinkArtifact.python"), input=given)
    assert (reply.status, "is a sequence already" in said(reply)) == (400, True)
    reply = await http.ask(
        client_document("CreateArtifact.core"),
        input={
            **PLACE,
            "artifactTypeName": "dataset",
            "artifactCollectionName": "shown",
            "digest": "f" * 32,
        },
    )
    assert (reply.status, "is a portfolio" in said(reply)) == (400, True)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"entityName": "acme"}, "can only be linked to a portfolio of 'tester'"),
        ({"projectName": "wandb-registry-model"}, "no registries"),
        ({"artifactPortfolioName": None}, "needs the name"),
        ({"artifactID": None, "clientID": "unknown"}, "no such artifact"),
        ({"aliases": [{"artifactCollectionName": "shown", "alias": "a:b"}]}, "not an alias"),
    ],
)
async def test_a_link_that_cannot_be_is_refused_and_leaves_nothing(
    client: ArtifactClient, http: Http, server: Server, changes: dict[str, Any], refusal: str
) -> None:
    async with server.services.store.write() as connection:
        team = await create_team(connection, "acme", admin_user_id=server.user_id)
        await set_member(connection, team, server.user_id, Role.ADMIN)
    made = await client.log({"a": b"1"})
    given = {"artifactID": made, "artifactPortfolioName": "shown", **PLACE} | changes
    reply = await http.ask(client_document("LinkArtifact.python"), input=given)
    assert reply.status in {400, 404}
    assert refusal in said(reply)
    assert await server.rows("select * from artifact_links") == []
    assert await server.rows("select * from artifact_collections where kind = 'PORTFOLIO'") == []


async def test_a_deleted_portfolio_lets_its_versions_be(client: ArtifactClient, http: Http) -> None:
    made = await client.log({"a": b"1"})
    await client.link(made, "shown", "prod")
    portfolio = await _collection(http, "shown")
    delete = client_document("DeleteArtifactPortfolio.python")
    gone = await http.data(delete, id=portfolio["id"])
    assert gone["result"]["artifactCollection"]["state"] == "DELETED"
    assert await client.member("shown:prod") is None
    assert (await client.named("data:latest"))["id"] == made


async def test_a_portfolio_is_renamed_tagged_and_listed(client: ArtifactClient, http: Http) -> None:
    made = await client.log({"a": b"1"})
    await client.link(made, "shown")
    portfolio = await _collection(http, "shown")
    change = {"artifactPortfolioID": portfolio["id"], "name": "seen", "description": "d"}
    await http.data(client_document("UpdateArtifactPortfolio.python"), input=change)
    tags = {**PLACE, "artifactCollectionName": "seen", "tags": [{"tagName": "x"}]}
    await http.data(client_document("AddArtifactCollectionTags.python"), input=tags)
    found = await _collection(http, "seen")
    assert (found["description"], found["tags"]["edges"][0]["node"]["name"]) == ("d", "x")
    data = await http.data(
        client_document("ProjectArtifacts.python"), **PROJECT, type="dataset", collection="seen"
    )
    (edge,) = data["project"]["artifactType"]["artifactCollection"]["artifacts"]["edges"]
    assert (edge["version"], edge["node"]["id"]) == ("v0", made)
    change = {"artifactSequenceID": portfolio["id"], "destinationArtifactTypeName": "model"}
    reply = await http.ask(client_document("UpdateArtifactSequenceType.python"), input=change)
    assert (reply.status, "is a portfolio, not a sequence" in said(reply)) == (400, True)


def _aliases(collection: str, *names: str) -> list[dict[str, str]]:
    return [{"artifactCollectionName": collection, "alias": name} for name in names]


async def _collection(http: Http, name: str) -> Any:
    data = await http.data(
        client_document("ProjectArtifactCollection.python"), **PROJECT, type="dataset", name=name
    )
    return data["project"]["artifactType"]["artifactCollection"]
