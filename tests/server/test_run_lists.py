"""Lists of runs and projects: pages, counts, and filters that are never ignored."""

import json
from typing import Any

import pytest
from client_documents import client_document
from server_harness import Http

pytestmark = pytest.mark.anyio

PROJECT = {"entity": "tester", "project": "proj"}


async def make(http: Http, *names: str, **fields: Any) -> None:
    for name in names:
        await http.data(client_document("UpsertBucket.core"), name=name, project="proj", **fields)


async def names_of(http: Http, filters: Any = None, **variables: Any) -> list[str]:
    text = None if filters is None else json.dumps(filters)
    data = await http.data(client_document("Runs.lazy"), **PROJECT, filters=text, **variables)
    edges = data["project"]["runs"]["edges"]
    assert data["project"]["runCount"] >= len(edges)
    return [edge["node"]["name"] for edge in edges]


async def test_pages_follow_each_other_in_either_order(http: Http) -> None:
    names = [f"r{number}" for number in range(7)]
    await make(http, *names)
    for order, expected in (("+created_at", names), ("-created_at", names[::-1])):
        seen: list[str] = []
        cursor = None
        while True:
            data = await http.data(
                client_document("Runs.full"), **PROJECT, cursor=cursor, perPage=3, order=order
            )
            page = data["project"]["runs"]
            seen += [edge["node"]["name"] for edge in page["edges"]]
            cursor = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                break
        assert seen == expected
        assert data["project"]["runCount"] == 7


async def test_filters_choose(http: Http) -> None:
    await make(http, "a", groupName="g1", jobType="train")
    await make(http, "b", groupName="g2", jobType="train")
    await http.stream("b", {"complete": True, "exitcode": 1})
    assert await names_of(http, {}) == ["b", "a"]
    assert await names_of(http, {"group": "g1"}) == ["a"]
    assert await names_of(http, {"$and": [{"jobType": "train"}, {"state": "failed"}]}) == ["b"]
    assert await names_of(http, {"name": {"$in": ["a", "c"]}}) == ["a"]
    assert await names_of(http, {"name": {"$in": []}}) == []
    assert await names_of(http, {"state": {"$ne": "failed"}}) == ["a"]
    assert await names_of(http, {"group": None}) == []
    assert await names_of(http, {"username": "tester"}) == ["b", "a"]


@pytest.mark.parametrize(
    "filters",
    [
        {"config.lr.value": 1},
        {"$or": [{"name": "a"}, {"name": "b"}]},
        {"name": {"$regex": "a"}},
        {"state": 3},
        [],
    ],
)
async def test_a_filter_that_is_not_understood_is_a_400(http: Http, filters: Any) -> None:
    await make(http, "a")
    reply = await http.ask(client_document("Runs.lazy"), **PROJECT, filters=json.dumps(filters))
    assert reply.status == 400


@pytest.mark.parametrize("variables", [{"order": "+summary_metrics.loss"}, {"cursor": "x"}])
async def test_an_order_or_cursor_that_is_not_understood_is_a_400(
    http: Http, variables: dict[str, str]
) -> None:
    await make(http, "a")
    assert (await http.ask(client_document("Runs.lazy"), **PROJECT, **variables)).status == 400


async def test_projects_are_made_listed_and_described(http: Http) -> None:
    for name in ("one", "two", "two"):
        made = await http.data(
            client_document("CreateProject.python"),
            input={"entityName": "tester", "name": name, "description": f"about {name}"},
        )
        assert made["result"]["project"]["description"] == f"about {name}"
    listed = await http.data(client_document("GetProjects.python"), entity="tester", perPage=2)
    assert [edge["node"]["name"] for edge in listed["models"]["edges"]] == [
        "model-registry",
        "one",
    ]
    cursor = listed["models"]["pageInfo"]["endCursor"]
    rest = await http.data(client_document("GetProjects.python"), entity="tester", cursor=cursor)
    assert [edge["node"]["name"] for edge in rest["models"]["edges"]] == ["two"]
    found = await http.data(client_document("GetProject.python"), entity="tester", name="ONE")
    assert found["project"]["name"] == "one"
    assert found["project"]["user"]["username"] == "tester"


async def test_the_project_of_queues_is_there_from_the_start(http: Http) -> None:
    found = await http.data(
        client_document("GetProject.python"), entity="tester", name="model-registry"
    )
    assert found["project"] is not None


async def test_what_is_no_organization_is_null(http: Http) -> None:
    data = await http.data(
        client_document("OrganizationCoreWeaveOrganizationID.core"), entityName="tester"
    )
    assert data["entity"]["organization"] is None
    data = await http.data(client_document("XXHashDigestsEnabled.core"), entityName="tester")
    assert data["entity"]["xxhashDigestsEnabled"] is False


async def test_features_are_announced_by_name(http: Http) -> None:
    data = await http.data(client_document("ServerFeaturesQuery.core"))
    names = {feature["name"] for feature in data["serverInfo"]["features"]}
    assert "FILESTREAM_GZIP" in names
    assert "ARTIFACT_DIGEST_ALGORITHM" not in names
