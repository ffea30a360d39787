"""Lists of runs and projects: pages, counts, and filters that are never ignored."""

import base64
import json
from typing import Any

import pytest
from server_harness import Http

from client_documents import client_document
from launch_async.server.ids import encode_run_id

pytestmark = pytest.mark.anyio

PROJECT = {"entity": "tester", "project": "proj"}


def cursor(*values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


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


async def summed_up(http: Http, **summaries: Any) -> None:
    for name, summary in summaries.items():
        text = summary if isinstance(summary, str) else json.dumps(summary)
        await make(http, name, summaryMetrics=text, config=json.dumps({"lr": {"value": len(name)}}))


ORDERS = {
    "+summary_metrics.loss": ["none", "nan", "low", "mid", "high", "text"],
    "-summary_metrics.loss": ["text", "high", "mid", "low", "nan", "none"],
    "summary_metrics.deep.er": ["low", "mid", "high", "text", "none", "nan"],
    "+name": ["high", "low", "mid", "nan", "none", "text"],
    "-display_name": ["text", "none", "nan", "mid", "low", "high"],
    "-config.lr.value": ["text", "none", "high", "nan", "mid", "low"],
    "+config.lr": ["low", "mid", "nan", "high", "none", "text"],
    "-group": ["text", "nan", "none", "high", "mid", "low"],
    "heartbeat_at": ["low", "mid", "high", "none", "nan", "text"],
    "-state": ["text", "nan", "none", "high", "mid", "low"],
    "-exitcode": ["text", "nan", "none", "high", "mid", "low"],
}
"""Runs by what they are ordered by; alike ones, and what is missing, as they were made."""


async def test_runs_come_in_the_order_asked_for_page_by_page(http: Http) -> None:
    await summed_up(
        http,
        low={"loss": -1.5},
        mid={"loss": 2},
        high={"loss": 10**16},
        none={"deep": {"er": 1}},
        nan='{"loss": NaN, "deep.er": 2}',
        text={"loss": "a"},
    )
    await make(http, "text", groupName="g")
    for order, expected in ORDERS.items():
        seen: list[str] = []
        cursor = None
        more = True
        while more:
            data = await http.data(
                client_document("Runs.lazy"), **PROJECT, order=order, perPage=2, cursor=cursor
            )
            page = data["project"]["runs"]
            seen += [edge["node"]["name"] for edge in page["edges"]]
            cursor = page["edges"][-1]["cursor"]
            more = page["pageInfo"]["hasNextPage"]
        assert seen == expected, order


async def test_a_page_stays_where_it_is_while_runs_come_and_go(http: Http) -> None:
    await make(http, "b", "d", "f", "h")
    where = {**PROJECT, "order": "+name", "perPage": 2}
    first = (await http.data(client_document("Runs.lazy"), **where))["project"]["runs"]
    assert [edge["node"]["name"] for edge in first["edges"]] == ["b", "d"]
    await make(http, "a", "c", "e")
    run_id = encode_run_id("d", "proj", "tester")
    await http.data(client_document("DeleteRun.plain"), id=run_id)
    cursor = first["edges"][-1]["cursor"]
    assert await names_of(http, order="+name", cursor=cursor) == ["e", "f", "h"]


async def test_runs_are_found_by_what_their_scripts_told(http: Http) -> None:
    await make(http, "a", config='{"lr":{"value":0.1},"net.depth":{"value":3}}', tags=["x"])
    await make(http, "b", config='{"lr":{"value":"0.1"},"net":{"value":{"depth":3}}}', notes="n")
    await make(http, "c", config='{"lr":{"value":NaN}}')
    await http.stream("b", {"complete": True, "exitcode": 1})
    expected: dict[str, Any] = {
        "a": [
            {"config.lr": 0.1},
            {"config.lr.value": {"$lt": 1}},
            {"tags": {"$in": ["x", "y"]}},
            {"tags": "x", "username": "tester", "entity": "tester", "project": "proj"},
        ],
        "b": [
            {"config.lr": {"$regex": "^0"}},
            {"exitcode": 1, "duration": {"$lt": 60}},
            {"notes": {"$exists": True}},
            {"state": {"$in": ["failed", "crashed"]}},
        ],
        "c": [
            {"$and": [{"config.lr": None}, {"created_at": {"$gt": "2020-01-01"}}]},
            {"config.net.depth": {"$exists": False}},
            {"$nor": [{"display_name": {"$regex": "A|B", "$options": "i"}}]},
        ],
        "ba": [
            {"config.net.depth": 3},
            {"config.net.depth.value": 3},
            {"config.lr": {"$not": {"$exists": False}}, "name": {"$ne": "c"}},
        ],
        "": [
            {"createdAt": {"$gt": 4_000_000_000}},
            {"heartbeatAt": {"$lt": "2020-01-01T00:00:00Z"}},
            {"$not": {"state": {"$nin": []}}},
        ],
        "cba": [{}, {"$or": [{"$and": []}]}, {"tags": {"$ne": "y"}}],
    }
    for names, filters in expected.items():
        for each in filters:
            assert "".join(await names_of(http, each)) == names, each


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


async def test_a_filter_that_is_not_understood_is_a_400(http: Http) -> None:
    await make(http, "a")
    reply = await http.ask(client_document("Runs.lazy"), **PROJECT, filters='{"loss":{"$gt":1}}')
    assert reply.status == 400
    assert "no field 'loss'" in reply.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "variables",
    [
        {"order": "+loss"},
        {"order": "tags"},
        {"order": "++name"},
        {"cursor": "x"},
        {"cursor": "WyJhIiwxXQ=="},  # one of an order by name
        {"cursor": cursor("2026-11-22T12:00:00", 1)},  # no zone
        {"cursor": cursor("0001-01-01T00:00:00+14:00", 1)},
        {"cursor": cursor("2026-11-22T12:00:00Z", 10**30)},
    ],
)
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
