"""A document of a few hundred bytes must not keep the server busy for minutes."""

import time
from pathlib import Path

import aiohttp
import msgspec
import pytest
from graphql import get_introspection_query, parse
from server_harness import Http, Template, running_server

from client_documents import client_documents
from launch_async.adapters.queues.wandb import RUNS_PER_REQUEST
from launch_async.server.graphql import GraphQL
from launch_async.server.query_limits import check_size
from launch_async.wire.operations import look_up_runs

pytestmark = pytest.mark.anyio

MANY = 4000
SPREADS = 60
SPREAD = "{ viewer { ...F0 } } " + " ".join(
    f"fragment F{n} on User {{ id ...F{n + 1} ...F{n + 1} }}" for n in range(SPREADS)
)
LEVELS = "project { runs { edges { node { " * 6 + "id" + " } } } }" * 6


@pytest.mark.parametrize(
    "query",
    [
        "{ viewer {" + " id" * MANY + "} }",
        "{ viewer {" + " ".join(f"a{n}: id" for n in range(MANY)) + "} }",
        f"{SPREAD} fragment F{SPREADS} on User {{ id }}",
        "{ " + LEVELS + " }",
        "{" + "a{" * 2000 + "a" + "}" * 2001,
        "query {" + " id" * 100_000 + "}",
    ],
    ids=["same", "aliases", "fragments", "levels", "depth", "tokens"],
)
async def test_a_document_that_is_too_large_is_refused_at_once(http: Http, query: str) -> None:
    began = time.monotonic()
    reply = await http.ask(query)
    assert reply.status == 400
    assert time.monotonic() - began < 30


def test_documents_of_clients_agents_and_tools_are_small_enough() -> None:
    for text in (
        *client_documents().values(),
        get_introspection_query(),
        look_up_runs(RUNS_PER_REQUEST),
    ):
        check_size(parse(text))


async def test_a_query_that_takes_too_long_is_cut_off_and_harms_nobody(
    tmp_path: Path, template: Template
) -> None:
    hasty = msgspec.structs.replace(
        template, graphql=GraphQL(template.graphql.schema, query_seconds=0.05)
    )
    inner = (
        "id historyTail eventsTail files { edges { node { id } } } user { teams { __typename } }"
    )
    query = f"""{{ project(name: "p", entityName: "tester") {{ runs {{ edges {{ node {{
      {inner} project {{ entity {{ projects {{ edges {{ node {{ runs {{ edges {{ node {{ {inner} }}
      }} }} }} }} }} }} }} }} }} }} }} }}"""
    async with (
        running_server(tmp_path / "s", hasty) as server,
        aiohttp.ClientSession() as session,
    ):
        http = Http(session, server)
        for number in range(30):
            assert (await http.stream(f"r{number}", {}, project="p")).status == 200
        for _ in range(3):
            reply = await http.ask(query)
            assert (reply.status, "too long" in reply.json()["errors"][0]["message"]) == (400, True)
        assert (await http.stream("r0", {"complete": True}, project="p")).status == 200
        assert await server.rows("select state from runs where name = 'r0'") == [("finished",)]
