"""Deleting a run: what goes with it, what stays, and what it told while it was there."""

from typing import Any

import pytest
from artifact_harness import ArtifactClient
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.ids import encode_run_id

pytestmark = pytest.mark.anyio

RUN_ID = encode_run_id("r1", "art", "tester")
STATES = "select digest, state from artifacts order by digest"


@pytest.fixture
def artifacts(http: Http) -> ArtifactClient:
    return ArtifactClient(http)


def digest_of(letter: str) -> str:
    return letter * 32


async def log_and_use(http: Http, artifacts: ArtifactClient) -> None:
    """Let r1 log two versions, one of them with an alias, and use one of r2's."""
    for run in ("r1", "r2"):
        await http.stream(run, {}, project="art")
    alias = [{"artifactCollectionName": "data", "alias": "best"}]
    for letter, run, more in (("a", "r1", {"aliases": alias}), ("b", "r2", {}), ("c", "r1", {})):
        await artifacts.log({"f": letter.encode()}, digest=digest_of(letter), runName=run, **more)
    used = await artifacts.named("data:v1")
    given = {"artifactID": used["id"], "entityName": "tester", "projectName": "art"}
    document = client_document("UseArtifact.core")
    await http.data(document, input={**given, "runName": "r1"})


async def test_a_runs_files_and_lines_go_with_it(http: Http, server: Server) -> None:
    document = client_document("CreateRunFiles.core")
    names = {"entity": "tester", "project": "art", "run": "r1"}
    block = {"offset": 0, "content": ["{}"]}
    files = dict.fromkeys(("wandb-history.jsonl", "wandb-events.jsonl", "output.log"), block)
    await http.stream("r1", {"files": files}, project="art")
    made = (await http.data(document, **names, files=["a", "b"]))["createRunFiles"]["files"]
    for file in made:
        assert (await http.send("PUT", file["uploadUrl"], data=b"bytes")).status == 200
    blobs = server.services.settings.data_dir / "blobs" / "runs"
    assert len(list(blobs.rglob("*/*"))) == 2

    await http.data(client_document("DeleteRun.plain"), id=RUN_ID)

    assert list(blobs.rglob("*/*")) == []
    for table in ("runs", "run_files", "run_history", "run_events", "run_console", "run_alerts"):
        assert await server.rows(f"select * from {table}") == []  # noqa: S608 - our own names
    assert (await http.ask(client_document("DeleteRun.plain"), id=RUN_ID)).status == 404


async def test_artifacts_of_a_deleted_run_stay(
    http: Http, server: Server, artifacts: ArtifactClient
) -> None:
    await log_and_use(http, artifacts)
    await http.data(client_document("DeleteRun.plain"), id=RUN_ID)
    assert {row.state for row in await server.rows(STATES)} == {"COMMITTED"}


async def test_artifacts_go_with_their_run_when_that_is_asked_for(
    http: Http, server: Server, artifacts: ArtifactClient
) -> None:
    await log_and_use(http, artifacts)
    await http.data(client_document("DeleteRun.artifacts"), id=RUN_ID, deleteArtifacts=True)
    assert await server.rows(STATES) == [
        (digest_of("a"), "DELETED"),
        (digest_of("b"), "COMMITTED"),
        (digest_of("c"), "DELETED"),
    ]
    assert (await artifacts.named("data:latest"))["versionIndex"] == 1


async def test_alerts_are_read_back_the_newest_first(http: Http) -> None:
    await http.stream("r1", {})
    given = {"entityName": "tester", "projectName": "proj", "runName": "r1", "text": "t"}
    for title, severity in (("first", "WARN"), ("second", None), ("third", "ERROR")):
        document = client_document("NotifyScriptableRunAlert.core")
        await http.data(document, **given, title=title, severity=severity, waitDuration=60)
    query = """{ project(name: "proj", entityName: "tester") { run(name: "r1") {
        alerts(first: 2) { title text severity createdAt } duration } } }"""
    run = (await http.data(query))["project"]["run"]
    shown: list[Any] = [(alert["title"], alert["severity"]) for alert in run["alerts"]]
    assert shown == [("third", "ERROR"), ("second", "INFO")]
    assert run["duration"] >= 0
