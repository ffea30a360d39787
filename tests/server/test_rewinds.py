"""A run goes back to an earlier step and on from there, or another one does."""

import json
from typing import Any

import pytest
from server_harness import Http, Reply, Server

from client_documents import client_document
from launch_async.server.users import create_api_key, create_user

pytestmark = pytest.mark.anyio

WHERE = {"runName": "r1", "entity": "tester", "project": "proj"}
LINES = "select body from run_history order by line"


async def logged(http: Http, steps: int = 10) -> None:
    lines = [json.dumps({"_step": n, "a": {"b": n}, f"only{n}": 1}) for n in range(steps)]
    await http.stream("r1", {"files": {"wandb-history.jsonl": {"offset": 0, "content": lines}}})


async def rewind(http: Http, step: float, key: str | None = None, **changes: Any) -> Reply:
    variables = WHERE | {"metricName": "_step", "metricValue": step} | changes
    return await http.ask(client_document("RewindRun.core"), key, **variables)


async def test_what_came_after_a_step_is_gone(http: Http, server: Server) -> None:
    await logged(http)

    reply = await rewind(http, 3)

    assert reply.json()["data"]["rewindRun"]["rewoundRun"]["historyLineCount"] == 4
    bodies = [json.loads(row.body)["_step"] for row in await server.rows(LINES)]
    assert bodies == [0, 1, 2, 3]
    (run,) = await server.rows("select * from runs")
    assert (run.history_lines, run.last_step) == (4, 3)
    assert json.loads(run.summary) == {"_step": 3, "a": {"b": 3}} | {
        f"only{n}": 1 for n in range(4)
    }
    assert set(json.loads(run.history_keys)) == {"_step", "a.b", *(f"only{n}" for n in range(4))}


async def test_a_run_goes_on_behind_the_step(http: Http, server: Server) -> None:
    await logged(http)
    await rewind(http, 3)
    line = json.dumps({"_step": 4, "a": {"b": 40}})
    await http.stream("r1", {"files": {"wandb-history.jsonl": {"offset": 4, "content": [line]}}})
    assert [json.loads(row.body)["a"]["b"] for row in await server.rows(LINES)] == [0, 1, 2, 3, 40]


async def test_a_step_that_is_still_to_come_changes_nothing(http: Http, server: Server) -> None:
    await logged(http)
    before = await server.rows("select summary, history_keys, history_lines from runs")
    assert (await rewind(http, 9)).status == 200
    assert await server.rows("select summary, history_keys, history_lines from runs") == before


async def test_before_the_first_step_nothing_is_left(http: Http, server: Server) -> None:
    await logged(http)
    await rewind(http, -1)
    assert await server.rows(LINES) == []
    (run,) = await server.rows("select * from runs")
    assert (run.history_lines, run.last_step, run.summary, run.history_keys) == (0, -1, "{}", "{}")


async def test_only_a_step_can_be_gone_back_to(http: Http, server: Server) -> None:
    await logged(http)
    reply = await rewind(http, 3, metricName="loss")
    assert (reply.status, "not to a 'loss'" in reply.body.decode()) == (400, True)
    assert len(await server.rows(LINES)) == 10


async def test_a_stranger_takes_no_run_back(http: Http, server: Server) -> None:
    await logged(http)
    async with server.services.store.write() as connection:
        key = await create_api_key(connection, await create_user(connection, "stranger"))
    assert (await rewind(http, 3, key)).status == 403
    assert (await rewind(http, 3, runName="none")).status == 404
    assert len(await server.rows(LINES)) == 10


async def test_what_the_client_numbers_anew_begins_anew(http: Http, server: Server) -> None:
    await logged(http)
    files = {"wandb-events.jsonl": ['{"a":1}'], "output.log": ["old", "older"]}
    blocks = {name: {"offset": 0, "content": content} for name, content in files.items()}
    await http.stream("r1", {"files": blocks})
    await rewind(http, 20)
    assert await server.rows("select event_lines, console_lines from runs") == [(0, 0)]
    await http.stream("r1", {"files": {"output.log": {"offset": 0, "content": ["new"]}}})
    assert await server.rows("select body from run_console") == [("new",)]
    assert await server.rows("select body from run_events") == []


async def fork(http: Http, name: str, **point: Any) -> Reply:
    config = json.dumps({"_wandb": {"value": {"branch_point": point}}})
    document = client_document("UpsertBucket.core")
    return await http.ask(document, name=name, project="proj", config=config)


async def test_a_fork_has_the_history_up_to_its_step_and_its_own(
    http: Http, server: Server
) -> None:
    await logged(http)
    assert (await fork(http, "r2", run_id="r1", step=3)).status == 200
    lines = [json.dumps({"_step": step, "a": {"b": step * 10}}) for step in (4, 5)]
    await http.stream("r2", {"files": {"wandb-history.jsonl": {"offset": 0, "content": lines}}})
    assert (await fork(http, "r3", run_id="r2", step=4)).status == 200
    query = """query($name: String!, $spec: [JSONString!]!) {
      project(name: "proj", entityName: "tester") { run(name: $name) {
        history(minStep: 0, maxStep: 100) spread: history(samples: 2) sampledHistory(specs: $spec)
        historyLineCount historyKeys historyTail summaryMetrics } } }"""
    spec = json.dumps({"keys": ["a.b"], "samples": 100})
    for name, own, values in (("r2", 2, [0, 1, 2, 3, 40, 50]), ("r3", 0, [0, 1, 2, 3, 40])):
        run = (await http.data(query, name=name, spec=[spec]))["project"]["run"]
        assert [json.loads(line)["a"]["b"] for line in run["history"]] == values
        assert [point["a.b"] for point in run["sampledHistory"][0]] == values
        assert [json.loads(line)["a"]["b"] for line in run["spread"]] == [
            2 if own else 1,
            values[-1],
        ]
        assert run["historyLineCount"] == own, "where the client goes on"
        assert run["historyKeys"]["lastStep"] == len(values) - 1
        counts = run["historyKeys"]["keys"]["a.b"]["typeCounts"]
        assert counts == [{"type": "number", "count": len(values)}]
        assert json.loads(json.loads(run["historyTail"])[0])["a"]["b"] == values[-1]
    assert json.loads(run["summaryMetrics"])["a"] == {"b": 40}
    assert (await fork(http, "r2", run_id="r1", step=9)).status == 200, "it is there already"
    assert len(await server.rows("select 1 from run_history where line < 0")) == 4 + 5


async def test_a_fork_of_nothing_is_refused(http: Http, server: Server) -> None:
    await logged(http)
    assert (await fork(http, "r2", run_id="none", step=3)).status == 404
    assert (await fork(http, "r2", run_id="r1", step="x")).status == 400
    assert await server.rows("select name from runs") == [("r1",)]
    assert (await fork(http, "r2", run_id="r1", step=-1)).status == 200
    assert (await fork(http, "r3", run_id="r3", step=4)).status == 200, "that is how a rewind looks"
    assert len(await server.rows(LINES)) == 10
