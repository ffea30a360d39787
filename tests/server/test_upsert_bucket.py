"""UpsertBucket: making a run and changing it, as wandb.init and the public API do."""

import json
from typing import Any

import pytest
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.ids import encode_run_id

pytestmark = pytest.mark.anyio

UPSERT = client_document("UpsertBucket.core")


async def upsert(http: Http, **variables: Any) -> dict[str, Any]:
    return (await http.data(UPSERT, **variables))["upsertBucket"]


async def test_a_new_run_and_its_project_are_made(http: Http) -> None:
    made = await upsert(http, name="r1", project="Proj", entity=None, config='{"a":{"value":1}}')
    assert made["inserted"] is True
    bucket = made["bucket"]
    assert bucket["id"] == encode_run_id("r1", "Proj", "tester")
    assert bucket["name"] == bucket["displayName"] == "r1"
    assert bucket["config"] == '{"a":{"value":1}}'
    assert bucket["historyLineCount"] == 0
    assert bucket["project"]["name"] == "Proj"
    assert bucket["project"]["entity"]["name"] == "tester"


async def test_null_leaves_a_field_as_it_is(http: Http) -> None:
    first = {
        "name": "r1",
        "project": "p",
        "displayName": "shown",
        "notes": "n",
        "tags": ["a", "b"],
        "groupName": "g",
        "jobType": "train",
        "config": '{"lr":{"value":1}}',
        "summaryMetrics": '{"best":1}',
        "commit": "abc",
        "host": "h",
        "program": "train.py",
        "repo": "git@x",
        "sweep": "s",
        "description": "d",
    }
    await upsert(http, **first)
    nulls = dict.fromkeys(first) | {"name": "r1", "project": "p"}
    again = await upsert(http, **nulls)
    assert again["inserted"] is False
    where = {"entity": "tester", "project": "p", "name": "r1"}
    run = (await http.data(client_document("Run.full"), **where))["project"]["run"]
    kept = ("displayName", "notes", "tags", "jobType", "config", "summaryMetrics", "commit")
    assert {key: run[key] for key in kept} == {key: first[key] for key in kept}
    assert (run["group"], run["sweepName"], run["description"]) == ("g", "s", "d")


async def test_a_value_replaces_what_was_there(http: Http) -> None:
    await upsert(http, name="r1", project="p", tags=["a"], config='{"a":1}')
    await upsert(http, name="r1", project="p", tags=[], config='{"b":2}')
    where = {"entity": "tester", "project": "p", "name": "r1"}
    run = (await http.data(client_document("Run.full"), **where))["project"]["run"]
    assert (run["tags"], run["config"]) == ([], '{"b":2}')


async def test_a_projects_name_is_found_in_any_case_and_shown_in_its_own(
    http: Http, server: Server
) -> None:
    await upsert(http, name="r1", project="Target")
    made = await upsert(http, name="r2", project="target")
    assert made["bucket"]["project"]["name"] == "Target"
    where = {"entity": "tester", "project": "TARGET", "run": "r1"}
    found = await http.data(client_document("RunState.core"), **where)
    assert found["project"]["run"]["state"] == "running"
    assert len(await server.rows("select * from projects where name_folded = 'target'")) == 1


async def test_no_project_is_the_project_uncategorized(http: Http) -> None:
    made = await upsert(http, name="r1")
    assert made["bucket"]["project"]["name"] == "uncategorized"


async def test_no_name_is_a_name_of_our_own(http: Http) -> None:
    made = await upsert(http, project="p")
    assert len(made["bucket"]["name"]) == 8


async def test_a_storage_id_finds_the_run(http: Http) -> None:
    await upsert(http, name="r1", project="p")
    run_id = encode_run_id("r1", "p", "tester")
    data = await http.data(
        client_document("UpsertBucket.summary"), id=run_id, summaryMetrics='{"x":1}'
    )
    assert data["upsertBucket"] is not None
    where = {"entity": "tester", "project": "p", "name": "r1"}
    run = (await http.data(client_document("Run.full"), **where))["project"]["run"]
    assert run["summaryMetrics"] == '{"x":1}'


@pytest.mark.parametrize(
    "run_id", ["", "nonsense", "UnVuOnYxOng=", encode_run_id("x", "p", "tester")]
)
async def test_a_storage_id_of_no_run_is_a_404(http: Http, run_id: str) -> None:
    await upsert(http, name="r1", project="p")
    reply = await http.ask(client_document("StopRun.core"), id=run_id)
    assert reply.status == 404


@pytest.mark.parametrize(
    "variables",
    [
        {"name": "a/b"},
        {"name": "a:b"},
        {"name": "x" * 129},
        {"name": "r", "project": "a/b"},
        {"name": "r", "project": "a\nb"},
        {"name": "r", "config": "[]"},
        {"name": "r", "summaryMetrics": "3"},
        {"name": "r", "state": "resting"},
    ],
)
async def test_what_cannot_be_kept_is_a_400_and_leaves_nothing(
    http: Http, server: Server, variables: dict[str, Any]
) -> None:
    reply = await http.ask(UPSERT, **{"project": "p", **variables})
    assert reply.status == 400
    assert await server.rows("select * from runs") == []


async def test_a_run_may_be_made_before_it_starts(http: Http) -> None:
    await http.data(client_document("UpsertBucket.api"), name="r1", project="p", state="pending")
    where = {"entity": "tester", "project": "p", "run": "r1"}
    assert (await http.data(client_document("RunState.core"), **where))["project"]["run"][
        "state"
    ] == ("pending")
    await http.stream("r1", {}, project="p")
    assert (await http.data(client_document("RunState.core"), **where))["project"]["run"][
        "state"
    ] == ("running")


async def test_changing_an_ended_run_does_not_start_it(http: Http) -> None:
    await http.stream("r1", {"complete": True, "exitcode": 0})
    run_id = encode_run_id("r1", "proj", "tester")
    changed = await http.data(
        client_document("UpsertBucket.update"), id=run_id, tags=["late"], config="{}", notes="seen"
    )
    bucket = changed["upsertBucket"]["bucket"]
    assert (bucket["state"], bucket["tags"], bucket["notes"]) == ("finished", ["late"], "seen")


async def test_resume_status_of_a_fresh_run_has_every_counter(http: Http) -> None:
    await upsert(http, name="r1", project="p", config='{"_wandb":{"value":{"t":{"3":[1]},"m":[]}}}')
    data = await http.data(client_document("RunResumeStatus.core"), project="p", name="r1")
    bucket = data["model"]["bucket"]
    assert bucket["historyTail"] == bucket["eventsTail"] == "[]"
    assert bucket["summaryMetrics"] == "{}"
    counts = ("logLineCount", "historyLineCount", "eventsLineCount")
    assert [bucket[count] for count in counts] == [0, 0, 0]
    assert json.loads(bucket["wandbConfig"]) == {"t": {"3": [1]}}


async def test_resume_status_of_no_run_is_null(http: Http) -> None:
    await upsert(http, name="r1", project="p")
    data = await http.data(client_document("RunResumeStatus.core"), project="p", name="r2")
    assert data["model"]["bucket"] is None
    data = await http.data(client_document("RunResumeStatus.core"), project="none", name="r2")
    assert data["model"] is None
