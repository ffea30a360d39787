"""What POST /graphql answers, good and bad."""

import pytest
from server_harness import Http, Server, Template

from client_documents import client_document
from launch_async.server.graphql import Question

pytestmark = pytest.mark.anyio


async def test_undeclared_variables_are_ignored(http: Http) -> None:
    data = await http.data(client_document("Viewer.core"), usedAs=None, deleteArtifacts=False)
    assert data["viewer"]["username"] == "tester"


async def test_variables_may_be_missing(http: Http, server: Server) -> None:
    reply = await http.send(
        "POST",
        "/graphql",
        json={"query": "{ viewer { entity } }"},
        headers={"Authorization": f"Bearer {server.key}"},
    )
    assert reply.json() == {"data": {"viewer": {"entity": "tester"}}}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ viewer { nope } }", "Cannot query field 'nope' on type 'User'. Did you mean 'name'?"),
        ("{ viewer {", "Syntax Error: Expected Name, found <EOF>."),
        ("", "Syntax Error: Unexpected <EOF>."),
    ],
)
async def test_a_document_that_cannot_be_executed_is_a_400(
    http: Http, query: str, message: str
) -> None:
    reply = await http.ask(query)
    assert reply.status == 400
    assert reply.json()["errors"][0]["message"] == message


async def test_a_variable_of_the_wrong_type_is_a_400(http: Http) -> None:
    reply = await http.ask(client_document("StopRun.core"), id=None)
    assert reply.status == 400
    assert "$id" in reply.json()["errors"][0]["message"]


async def test_a_string_that_holds_no_json_is_a_400(http: Http) -> None:
    reply = await http.ask(client_document("UpsertBucket.core"), name="r", config="{not json")
    assert reply.status == 400
    assert "does not hold JSON" in reply.json()["errors"][0]["message"]


async def test_nesting_without_end_is_a_400(http: Http, server: Server) -> None:
    deep = '{"a":' * 100_000
    headers = {"Authorization": f"Bearer {server.key}"}
    for path in ("/graphql", "/files/tester/proj/r/file_stream"):
        assert (await http.send("POST", path, data=deep, headers=headers)).status == 400
    for query in ("{a" * 5000 + "}" * 5000, client_document("UpsertBucket.core")):
        assert (await http.ask(query, name="r", config=deep)).status == 400


async def test_a_refusal_has_its_status_and_path(http: Http) -> None:
    reply = await http.ask(client_document("UpsertBucket.core"), name="r", entity="strangers")
    assert reply.status == 403
    (error,) = reply.json()["errors"]
    assert error["path"] == ["upsertBucket"]
    assert "no entity 'strangers'" in error["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"query": 3}', b"\xff"])
async def test_a_body_that_is_no_request_is_a_400(http: Http, server: Server, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {server.key}"}
    reply = await http.send("POST", "/graphql", data=body, headers=headers)
    assert reply.status == 400
    assert "not a GraphQL request" in reply.json()["errors"][0]["message"]


async def test_a_fault_is_told_by_number_only(
    server: Server, template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        """Stands for a store whose disk is gone."""

        def __getattr__(self, name: str) -> None:
            raise OSError("disk on fire")

    question = Question(query="{ entity { name } }")
    answer = await template.graphql.answer(question, server.request(store=Broken()))
    message = answer.body["errors"][0]["message"]
    assert answer.status == 500
    assert "disk on fire" not in message
    number = message.rpartition(" ")[2]
    logged = capsys.readouterr().out
    assert number in logged
    assert "disk on fire" in logged


async def test_unknown_paths_and_telemetry_are_404(http: Http) -> None:
    for path in ("/sdk/otel/v1/metrics", "/sdk/otel/v1/logs", "/nonsense"):
        reply = await http.send("POST", path)
        assert (reply.status, reply.json()["error"]) == (404, "Not Found")


async def test_health_needs_no_key(http: Http) -> None:
    assert (await http.send("GET", "/healthz")).status == 200
