"""What only clients before 0.31 ask for is answered as they need it."""

import json
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from server_harness import Http

from client_documents import client_document, documents_of
from client_environments import REMEDY, is_installed, package_of

pytestmark = pytest.mark.anyio

RUN = {"project": "proj", "entity": "tester", "name": "r1"}
METADATA = "wandb-metadata.json"


@pytest.fixture(scope="module")
def document(miss: Callable[[str], NoReturn]) -> Callable[[str], str]:
    """Returns a document of wandb 0.19 by name."""
    if not is_installed("0.19"):
        miss(f"wandb 0.19 is missing: {REMEDY}")
    return documents_of(package_of("0.19")).__getitem__


async def write_metadata(http: Http, content: bytes) -> None:
    """Make run r1 and upload its metadata."""
    await http.stream("r1", {})
    data = await http.data(
        client_document("CreateRunFiles.core"),
        entity="tester",
        project="proj",
        run="r1",
        files=[METADATA],
    )
    (file,) = data["createRunFiles"]["files"]
    assert (await http.send("PUT", file["uploadUrl"], data=content)).status == 200


async def run_info(http: Http, text: str) -> Any:
    return (await http.data(text, **RUN))["project"]["run"]["runInfo"]


async def test_a_run_tells_of_its_machine_and_code(
    http: Http, document: Callable[[str], str]
) -> None:
    told = {"program": "t.py", "args": ["--x"], "cpu_count": 2, "git": {"commit": "c0ffee"}}
    await write_metadata(http, json.dumps(told | {"memory": {"total": 1}}).encode())
    info = await run_info(http, document("RunInfo.internal_api"))
    assert info["program"] == "t.py"
    assert (info["args"], info["cpuCount"]) == (["--x"], 2)
    assert info["git"] == {"remote": None, "commit": "c0ffee"}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"program": 3}', b"\xff", b"[" * 100_000])
async def test_a_run_tells_nothing_of_what_cannot_be_read(
    http: Http, document: Callable[[str], str], content: bytes
) -> None:
    await write_metadata(http, content)
    assert await run_info(http, document("RunInfo.internal_api")) is None


async def test_a_run_without_metadata_tells_nothing(
    http: Http, document: Callable[[str], str]
) -> None:
    await http.stream("r1", {})
    assert await run_info(http, document("RunInfo.internal_api")) is None


async def test_a_project_lists_its_runs_under_their_older_name(
    http: Http, document: Callable[[str], str]
) -> None:
    await http.stream("r1", {})
    data = await http.data(document("ProjectRuns.internal_api"), model="proj", entity="tester")
    assert [edge["node"]["name"] for edge in data["model"]["buckets"]["edges"]] == ["r1"]


async def test_the_server_has_no_messages_for_a_runs_user(http: Http) -> None:
    data = await http.data(
        'mutation { upsertBucket(input: {name: "r1", modelName: "proj"}) '
        "{ serverSettings { serverMessages { plainText } } } }"
    )
    assert data["upsertBucket"]["serverSettings"] == {"serverMessages": []}


async def test_the_server_knows_of_no_newer_version(
    http: Http, document: Callable[[str], str]
) -> None:
    info = (await http.data(document("ServerInfo.api")))["serverInfo"]
    assert info["latestLocalVersionInfo"] is None
    assert info["cliVersionInfo"]["max_cli_version"]
