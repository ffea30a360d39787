"""file_stream: what a run tells as it goes, and what it is told."""

import gzip
import io
import json
from typing import Any

import pytest
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.ids import encode_run_id

pytestmark = pytest.mark.anyio

RUN = {"entity": "tester", "project": "proj", "name": "r1"}


def history(first: int, *steps: int, **metrics: Any) -> dict[str, Any]:
    lines = [json.dumps({"_step": step, "loss": step / 10, **metrics}) for step in steps]
    return {"files": {"wandb-history.jsonl": {"offset": first, "content": lines}}}


def console(first: int, *lines: str) -> dict[str, Any]:
    return {"files": {"output.log": {"offset": first, "content": list(lines)}}}


async def run_of(http: Http) -> dict[str, Any]:
    return (await http.data(client_document("Run.full"), **RUN))["project"]["run"]


async def test_a_heartbeat_to_an_unknown_run_makes_it(http: Http) -> None:
    reply = await http.stream("r1", {})
    assert (reply.status, reply.json()["stopped"]) == (200, False)
    run = await run_of(http)
    assert (run["state"], run["historyLineCount"], run["user"]["username"]) == (
        "running",
        0,
        "tester",
    )


async def test_an_empty_body_is_a_heartbeat_too(http: Http, server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.key}"}
    path = "/files/tester/proj/r1/file_stream"
    assert (await http.send("POST", path, data=b"", headers=headers)).status == 200


async def test_a_repeated_request_changes_nothing(http: Http, server: Server) -> None:
    body = history(0, 0, 1, 2)
    body["files"] |= console(0, "a", "b")["files"]
    body["files"]["wandb-events.jsonl"] = {"offset": 0, "content": ['{"system.cpu":1}']}
    for _ in range(3):
        assert (await http.stream("r1", body)).status == 200
    assert len(await server.rows("select * from run_history")) == 3
    assert len(await server.rows("select * from run_events")) == 1
    run = await run_of(http)
    assert run["historyLineCount"] == 3
    assert run["historyKeys"]["keys"]["loss"]["typeCounts"] == [{"type": "number", "count": 3}]
    assert run["systemMetrics"] == '{"system.cpu":1}'


async def test_an_overlapping_request_adds_what_is_new(http: Http, server: Server) -> None:
    await http.stream("r1", history(0, 0, 1))
    await http.stream("r1", history(1, 1, 2, 3))
    steps = await server.rows("select line, step from run_history order by line")
    assert steps == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert (await run_of(http))["historyKeys"]["lastStep"] == 3


async def test_console_lines_overwrite(http: Http, server: Server) -> None:
    await http.stream("r1", console(0, "start", "10 %"))
    await http.stream("r1", console(1, "90 %", "done"))
    lines = await server.rows("select line, body from run_console order by line")
    assert lines == [(0, "start"), (1, "90 %"), (2, "done")]


async def test_the_last_summary_wins(http: Http) -> None:
    for text in ('{"a":1}', '{"b":2}'):
        await http.stream("r1", {"files": {"wandb-summary.json": {"offset": 0, "content": [text]}}})
    assert (await run_of(http))["summaryMetrics"] == '{"b":2}'


@pytest.mark.parametrize(
    ("exitcode", "state"), [(0, "finished"), (3, "failed"), (255, "failed"), (None, "finished")]
)
async def test_the_exit_code_decides_how_a_run_ended(
    http: Http, server: Server, exitcode: int | None, state: str
) -> None:
    await http.stream("r1", {"complete": True, "exitcode": exitcode})
    ((found, code, finished_at),) = await server.rows(
        "select state, exit_code, finished_at from runs"
    )
    assert (found, code) == (state, exitcode or 0)
    assert finished_at is not None


async def test_a_request_after_the_end_makes_the_run_go_on(http: Http, server: Server) -> None:
    await http.stream("r1", {"complete": True, "exitcode": 1})
    await http.stream("r1", {})
    rows = await server.rows("select state, exit_code, finished_at from runs")
    assert rows == [("running", None, None)]


async def test_preempting_is_a_state(http: Http) -> None:
    await http.stream("r1", {"preempting": True})
    assert (await run_of(http))["state"] == "preempting"


async def test_a_stop_is_told_until_the_run_ends(http: Http) -> None:
    await http.stream("r1", {})
    stop = await http.data(
        client_document("StopRun.core"), id=encode_run_id("r1", "proj", "tester")
    )
    assert stop["stopRun"]["success"] is True
    where = {"projectName": "proj", "entityName": "tester", "runId": "r1"}
    asked = await http.data(client_document("RunStoppedStatus.api"), **where)
    assert asked["project"]["run"]["stopped"] is True
    assert (await http.stream("r1", {})).json()["stopped"] is True
    await http.stream("r1", {"complete": True, "exitcode": 255})
    assert (await http.stream("r1", {})).json()["stopped"] is False


async def test_gzip_is_understood(http: Http, server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.key}", "Content-Encoding": "gzip"}
    body = gzip.compress(json.dumps(history(0, 0, 1)).encode())
    path = "/files/tester/proj/r1/file_stream"
    reply = await http.send("POST", path, data=body, headers=headers)
    assert reply.status == 200
    assert (await run_of(http))["historyLineCount"] == 2


async def test_sixty_four_mebibytes_are_not_too_much(http: Http) -> None:
    line = json.dumps({"_step": 0, "text": "x" * (1024 * 1024)})
    body = {"files": {"wandb-history.jsonl": {"offset": 0, "content": [line] * 64}}}
    whole = io.BytesIO(json.dumps(body).encode())
    headers = {"Authorization": f"Bearer {http.server.key}"}
    path = "/files/tester/proj/r1/file_stream"
    assert (await http.send("POST", path, data=whole, headers=headers)).status == 200
    assert (await run_of(http))["historyLineCount"] == 64


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"files": 3},
        {"files": {"output.log": {"offset": -1, "content": ["x"]}}},
        {"exitcode": "zero"},
    ],
)
async def test_what_is_no_request_is_a_400(http: Http, body: Any) -> None:
    reply = await http.stream("r1", body)
    assert reply.status == 400
    assert "not a file_stream request" in reply.json()["error"]


async def test_a_line_that_is_no_object_is_kept_as_it_is(http: Http, server: Server) -> None:
    content = ["not json", "[1]", '{"_step":"x"}', '{"_step":2.0}', '{"a":NaN}', "[" * 5000]
    body = {"files": {"wandb-history.jsonl": {"offset": 0, "content": content}}}
    assert (await http.stream("r1", body)).status == 200
    kept = await server.rows("select body, step from run_history order by line")
    assert [row[0] for row in kept] == content
    assert [row[1] for row in kept] == [None, None, None, 2, None, None]


async def test_unknown_keys_and_files_are_ignored(http: Http) -> None:
    body = {
        "dropped": 1,
        "files": {"other.log": {"offset": 0, "content": ["x"]}},
        "uploaded": ["f"],
    }
    assert (await http.stream("r1", body)).status == 200


async def test_a_request_that_was_overtaken_is_not_lost(http: Http, server: Server) -> None:
    late = history(0, 0, 1)
    late["files"]["wandb-summary.json"] = {"offset": 0, "content": ['{"loss":0.1}']}
    newer = history(2, 2, 3)
    newer["files"]["wandb-summary.json"] = {"offset": 0, "content": ['{"loss":0.3}']}
    await http.stream("r1", newer)
    await http.stream("r1", late)
    steps = await server.rows("select line, step from run_history order by line")
    assert steps == [(0, 0), (1, 1), (2, 2), (3, 3)]
    run = await run_of(http)
    assert (run["historyLineCount"], run["historyKeys"]["lastStep"]) == (4, 3)
    assert run["historyKeys"]["keys"]["loss"]["monotonic"] is True
    assert run["summaryMetrics"] == '{"loss":0.3}', "the late one is older"


@pytest.mark.parametrize(
    "late",
    [
        history(0, 0, 1),
        console(0, "a"),
        {"uploaded": ["config.yaml"]},
        {"complete": True, "exitcode": 3},
    ],
)
async def test_what_comes_late_does_not_start_an_ended_run(
    http: Http, server: Server, late: Any
) -> None:
    body = history(0, 0, 1)
    body["files"] |= console(0, "a", "b")["files"]
    await http.stream("r1", body)
    await http.stream("r1", {"complete": True, "exitcode": 3})
    await http.stream("r1", late)
    assert await server.rows("select state, exit_code from runs") == [("failed", 3)]


@pytest.mark.parametrize("alive", [history(2, 2), console(2, "c"), {}])
async def test_what_is_new_starts_an_ended_run(http: Http, server: Server, alive: Any) -> None:
    body = history(0, 0, 1)
    body["files"] |= console(0, "a", "b")["files"]
    await http.stream("r1", body)
    await http.stream("r1", {"complete": True, "exitcode": 3})
    await http.stream("r1", alive)
    assert await server.rows("select state, exit_code from runs") == [("running", None)]


@pytest.mark.parametrize(
    ("exitcode", "state"), [(0, "finished"), (1, "preempted"), (255, "preempted")]
)
async def test_a_run_that_was_being_preempted_did_not_fail(
    http: Http, server: Server, exitcode: int, state: str
) -> None:
    await http.stream("r1", {"preempting": True})
    await http.stream("r1", history(0, 0))
    assert await server.rows("select state from runs") == [("preempting",)], "it says so once"
    await http.stream("r1", {"complete": True, "exitcode": exitcode})
    assert await server.rows("select state, exit_code from runs") == [(state, exitcode)]
    await http.stream("r1", {})
    assert await server.rows("select state from runs") == [("running",)]


async def test_text_that_no_database_takes_is_kept_without_what_is_wrong_with_it(
    http: Http,
) -> None:
    raw = rb"""{"files": {"output.log": {"offset": 0, "content": ["nul \u0000", "half \ud800"]},
        "wandb-history.jsonl": {"offset": 0, "content": ["{\"a\": 1, \"x\": \"\\u0000\"}"]},
        "wandb-events.jsonl": {"offset": 0, "content": ["not utf-8: \xff"]}}}"""
    raw = raw.replace(rb"\xff", b"\xff")
    headers = {"Authorization": f"Bearer {http.server.key}"}
    path = "/files/tester/proj/r1/file_stream"
    assert (await http.send("POST", path, data=raw, headers=headers)).status == 200
    query = """{ project(name: "proj", entityName: "tester") { run(name: "r1") {
        logLines(last: 9) { edges { node { line } } } history events historyKeys } } }"""
    run = (await http.data(query))["project"]["run"]
    lines = [edge["node"]["line"] for edge in run["logLines"]["edges"]]
    assert lines == ["nul \N{REPLACEMENT CHARACTER}", "half ?"]
    assert json.loads(run["history"][0]) == {"a": 1, "x": "\0"}
    assert run["events"] == ["not utf-8: \N{REPLACEMENT CHARACTER}"]
    assert set(run["historyKeys"]["keys"]) == {"a", "x"}


async def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(http: Http) -> None:
    headers = {"Authorization": f"Bearer {http.server.key}", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * (200 * 1024 * 1024))
    path = "/files/tester/proj/r1/file_stream"
    assert (await http.send("POST", path, data=bomb, headers=headers)).status == 413


async def test_one_line_may_fill_a_request(http: Http) -> None:
    line = json.dumps({"_step": 7, "text": "x" * 10_000_000})
    body = {"files": {"wandb-history.jsonl": {"offset": 0, "content": [line]}}}
    whole = io.BytesIO(json.dumps(body).encode())
    headers = {"Authorization": f"Bearer {http.server.key}"}
    path = "/files/tester/proj/r1/file_stream"
    assert (await http.send("POST", path, data=whole, headers=headers)).status == 200
    assert (await run_of(http))["historyKeys"]["lastStep"] == 7
