"""Every route, with requests that no client would send: no 5xx, no stack trace, and an answer."""

import gzip
import json
import logging
import time
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from fuzz_harness import FUZZ, check, seed, still_serves
from fuzz_http import Call, calls, exchange
from hypothesis import given
from hypothesis import strategies as st
from server_harness import Http, Template, running_server

from launch_async.domain.secret import Secret
from launch_async.server.app import create_app
from launch_async.server.services import Services
from launch_async.server.settings import Settings

pytestmark = pytest.mark.anyio

ADMIN_KEY = Secret("a" * 40)


def routes() -> list[tuple[str, str]]:
    """Return the method and the path of every route there is."""
    whole = Settings(data_dir=Path(), admin_key=ADMIN_KEY)
    app = create_app(Services(settings=whole, store=None, blobs=None, signer=None), whole)
    return sorted(
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None
    )


ROUTES = routes()


@pytest.fixture
async def whole(tmp_path: Path, template: Template, anyio_backend: str) -> AsyncGenerator[Http]:
    """A server with every route, and something behind each."""
    async with (
        running_server(tmp_path / "whole", template, admin_key=ADMIN_KEY) as server,
        aiohttp.ClientSession() as session,
    ):
        http = Http(session, server)
        await seed(http)
        headers = {"Authorization": f"Bearer {ADMIN_KEY.reveal()}"}
        for path, body in (
            ("users", {"username": "victim"}),
            ("teams", {"name": "team", "members": [{"username": "victim", "role": "member"}]}),
        ):
            made = await http.send("POST", f"/admin/v1/{path}", json=body, headers=headers)
            assert made.status == 201
        yield http


def test_the_routes_are_known() -> None:
    assert ("POST", "/graphql") in ROUTES
    assert ("DELETE", "/admin/v1/users/{username}") in ROUTES
    assert ("PUT", "/storage/{key}") in ROUTES


@FUZZ
@given(st.lists(calls(ROUTES), min_size=1, max_size=10))
async def test_each_route_answers_whatever_comes(
    whole: Http, caplog: pytest.LogCaptureFixture, asked: list[Call]
) -> None:
    for call in asked:
        caplog.clear()
        await send(whole, call)
        faults = [record.exc_info for record in caplog.records if is_fault(record)]
        assert faults == [], call


async def test_the_server_still_serves_after_bodies_that_never_came(whole: Http) -> None:
    key = whole.server.key.encode()
    call = Call(
        method=b"PUT",
        target=b"/storage/runs/1/1?{signed}",
        headers=[(b"Content-Length", b"1000")],
        body=b"part",
        signed_key="runs/1/1",
    )
    head = b"POST /graphql HTTP/1.1\r\nAuthorization: Bearer " + key
    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(send, whole, call)
            tasks.start_soon(partial(exchange, whole.server.url, head, endless=True))
    await still_serves(whole)


@pytest.mark.parametrize("wrapped", [1, 2])
async def test_a_body_that_bursts_is_refused(
    tmp_path: Path, template: Template, wrapped: int
) -> None:
    limit = 2 * 1024 * 1024
    bomb = gzip.compress(b" " * 40 * limit)
    for _ in range(wrapped - 1):
        bomb = gzip.compress(bomb)
    async with (
        running_server(tmp_path / "s", template, max_request_bytes=limit) as server,
        aiohttp.ClientSession() as session,
    ):
        http = Http(session, server)
        headers = {"Authorization": f"Bearer {server.key}", "Content-Encoding": "gzip"}
        for path in ("/graphql", "/files/tester/p/r/file_stream"):
            reply = await http.send("POST", path, data=bomb, headers=headers)
            assert reply.status == (413 if wrapped == 1 else 400)
        await still_serves(http)


async def send(http: Http, call: Call) -> None:
    """Send one request and check the answer."""
    signer, query = http.server.services.signer, b""
    if call.signed_key is not None:
        method = call.method.decode("latin-1")
        query = signer.query(method, call.signed_key, None).encode("latin-1")
    began = time.monotonic()
    written = call.written(http.server.key.encode(), query)
    status, headers, body = await exchange(http.server.url, written, endless=call.broken)
    if status is None:
        assert call.broken, written
        return
    check(status, body, asked=written, began=began)
    if status >= 400 and headers.get("content-type", "").startswith("application/json") and body:
        assert json.loads(body)["error"], body


def is_fault(record: logging.LogRecord) -> bool:
    """Tell whether a record tells of more than a request that is not HTTP."""
    error = record.exc_info[1] if record.exc_info else None
    harmless = isinstance(error, HttpProcessingError | web.RequestPayloadError)
    return record.levelno >= logging.ERROR and not harmless
