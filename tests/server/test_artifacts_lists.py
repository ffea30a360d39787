"""Collections and versions by filter and in order."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
from artifact_harness import PLACE, PROJECT, ArtifactClient, said
from server_harness import Http, Reply, Template, running_server

from client_documents import client_document

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def client(
    tmp_path_factory: pytest.TempPathFactory, template: Template, anyio_backend: str
) -> AsyncGenerator[ArtifactClient]:
    """One server for all of these tests: they only read."""
    folder = tmp_path_factory.mktemp("lists") / "server"
    async with running_server(folder, template) as server, aiohttp.ClientSession() as session:
        client = ArtifactClient(Http(session, server))
        for name in ("mnist", "cifar", "imagenet"):
            await client.log({"a": b"1"}, name)
        await client.log({"a": b"2"}, "mnist", aliases=[], description="second")
        await client.log({"a": b"1"}, "net", artifactTypeName="model")
        tags = {**PLACE, "artifactCollectionName": "cifar", "tags": [{"tagName": "prod"}]}
        await client.http.data(client_document("AddArtifactCollectionTags.python"), input=tags)
        yield client


async def collections(client: ArtifactClient, **asked: Any) -> list[str]:
    reply = await ask_collections(client, **asked)
    assert reply.status == 200, said(reply)
    connection = reply.json()["data"]["project"]["artifactType"]["artifactCollections"]
    assert connection["totalCount"] == len(connection["edges"])
    return [edge["node"]["name"] for edge in connection["edges"]]


async def ask_collections(client: ArtifactClient, filters: Any = None, **asked: Any) -> Reply:
    return await client.http.ask(
        client_document("ArtifactTypeArtifactCollections.python"),
        **PROJECT,
        type="dataset",
        filters=None if filters is None else json.dumps(filters),
        **asked,
    )


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (None, ["imagenet", "cifar", "mnist"]),
        ("+name", ["cifar", "imagenet", "mnist"]),
        ("-name", ["mnist", "imagenet", "cifar"]),
        ("created_at", ["mnist", "cifar", "imagenet"]),
        ("-createdAt", ["imagenet", "cifar", "mnist"]),
    ],
)
async def test_collections_come_in_the_order_that_is_asked_for(
    client: ArtifactClient, order: str | None, names: list[str]
) -> None:
    assert await collections(client, order=order) == names


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["cifar", "imagenet", "mnist"]),
        ({"name": "mnist"}, ["mnist"]),
        ({"name": {"$in": ["mnist", "cifar"]}}, ["cifar", "mnist"]),
        ({"name": {"$nin": ["mnist", "cifar"]}}, ["imagenet"]),
        ({"name": {"$ne": "mnist"}}, ["cifar", "imagenet"]),
        ({"name": {"$regex": "net$|^ci"}}, ["cifar", "imagenet"]),
        ({"name": {"$not": {"$regex": "^m"}}}, ["cifar", "imagenet"]),
        ({"name": {"$contains": "ni"}}, ["mnist"]),
        ({"tag": "prod"}, ["cifar"]),
        ({"tag": {"$ne": "prod"}}, ["imagenet", "mnist"]),
        ({"tag": {"$regex": "^pr"}}, ["cifar"]),
        ({"$or": [{"tag": "prod"}, {"name": "mnist"}]}, ["cifar", "mnist"]),
        ({"$and": [{"tag": "prod"}, {"name": "mnist"}]}, []),
        ({"$nor": [{"tag": "prod"}, {"name": "mnist"}]}, ["imagenet"]),
        ({"$not": {"name": "mnist"}}, ["cifar", "imagenet"]),
        ({"createdAt": {"$gt": "2026-01-01"}}, ["cifar", "imagenet", "mnist"]),
        ({"created_at": {"$gte": "9999-01-01T00:00:00Z"}}, []),
        ({"description": None}, ["cifar", "imagenet", "mnist"]),
    ],
    ids=json.dumps,
)
async def test_collections_are_filtered(
    client: ArtifactClient, filters: Any, names: list[str]
) -> None:
    assert await collections(client, filters=filters, order="name") == names


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({"order": "size"}, "cannot be ordered by 'size'"),
        ({"filters": {"size": "1"}}, "cannot be filtered by 'size'"),
        ({"filters": {"name": {"$gt": "a"}}}, "not understood"),
        ({"filters": {"name": {"$regex": "("}}}, "no regular expression"),
        ({"filters": {"createdAt": {"$gt": "soon"}}}, "no moment in ISO 8601"),
        ({"filters": {"createdAt": "2026-01-01"}}, "compare with a moment by"),
        ({"filters": {"$xor": []}}, "join lists by"),
        ({"filters": [1]}, "are JSON objects"),
        ({"filters": {"name": {"$in": ["a"] * 1001}}}, "not understood"),
        ({"filters": {"$and": [{"name": "a"}] * 101}}, "at most 100 conditions"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_not_understood_is_refused(
    client: ArtifactClient, asked: dict[str, Any], refusal: str
) -> None:
    reply = await ask_collections(client, **asked)
    assert (reply.status, refusal in said(reply)) == (400, True), said(reply)


@pytest.mark.parametrize(
    ("asked", "versions"),
    [
        ({}, ["v1", "v0"]),
        ({"order": "+createdAt"}, ["v0", "v1"]),
        ({"order": "-versionIndex"}, ["v1", "v0"]),
        ({"filters": {"state": "COMMITTED"}}, ["v1", "v0"]),
        ({"filters": {"state": "PENDING"}}, []),
        ({"filters": {"alias": "latest"}}, ["v1"]),
        ({"filters": {"description": {"$regex": "cond"}}}, ["v1"]),
    ],
    ids=str,
)
async def test_versions_are_filtered_and_ordered(
    client: ArtifactClient, asked: dict[str, Any], versions: list[str]
) -> None:
    if "filters" in asked:
        asked = asked | {"filters": json.dumps(asked["filters"])}
    data = await client.http.data(
        client_document("ProjectArtifacts.python"),
        **PROJECT,
        type="dataset",
        collection="mnist",
        **asked,
    )
    found = data["project"]["artifactType"]["artifactCollection"]["artifacts"]
    assert [edge["version"] for edge in found["edges"]] == versions
    assert found["totalCount"] == len(versions)


async def test_a_project_lists_the_collections_of_every_type(client: ArtifactClient) -> None:
    data = await client.http.data(
        client_document("ProjectArtifactCollections.python"), **PROJECT, order="name"
    )
    edges = data["project"]["artifactCollections"]["edges"]
    assert [(edge["node"]["name"], edge["node"]["type"]["name"]) for edge in edges] == [
        ("cifar", "dataset"),
        ("imagenet", "dataset"),
        ("mnist", "dataset"),
        ("net", "model"),
    ]
    tagged = [edge["node"]["name"] for edge in edges if edge["node"]["tags"]["edges"]]
    assert tagged == ["cifar"]
