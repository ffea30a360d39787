"""How many answers are under way at once, and for how long."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest
from aiohttp import web

from launch_async.admin.access import Handler, at_most

pytestmark = pytest.mark.anyio

HUGE = b"x" * 50_000_000
"""More than sockets hold: who does not read it keeps it from being written."""


@asynccontextmanager
async def served(handler: Handler) -> AsyncGenerator[aiohttp.ClientSession]:
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(
            base_url=url, timeout=aiohttp.ClientTimeout(total=10)
        ) as session:
            yield session
    finally:
        await runner.cleanup()


async def status_of(session: aiohttp.ClientSession) -> tuple[int, str | None]:
    async with session.get("/") as response:
        return response.status, response.headers.get("Retry-After")


async def test_one_answer_too_many_is_refused_at_once():
    busy, done = anyio.Event(), anyio.Event()

    async def handle(_: web.Request) -> web.Response:
        busy.set()
        await done.wait()
        return web.Response()

    limiter = anyio.CapacityLimiter(1)
    async with served(at_most(limiter, handle)) as session, anyio.create_task_group() as group:
        group.start_soon(status_of, session)
        await busy.wait()
        assert await status_of(session) == (503, "1")
        done.set()
    assert limiter.borrowed_tokens == 0


async def test_a_reader_who_does_not_read_holds_a_place_and_loses_it():
    limiter = anyio.CapacityLimiter(1)
    places: list[float] = []

    async def handle(_: web.Request) -> web.Response:
        places.append(limiter.borrowed_tokens)
        return web.Response(body=HUGE)

    async with (
        served(at_most(limiter, handle, seconds=0.3)) as session,
        session.get("/") as response,
    ):
        assert response.status == 200
        assert limiter.borrowed_tokens == 1
        with anyio.fail_after(10):
            while limiter.borrowed_tokens:
                await anyio.sleep(0.01)
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert places == [1]


async def test_a_client_that_leaves_is_no_fault(caplog: pytest.LogCaptureFixture):
    limiter = anyio.CapacityLimiter(1)

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=HUGE)

    async with served(at_most(limiter, handle)) as session:
        async with session.get("/") as response:
            response.close()
        with anyio.fail_after(10):
            while limiter.borrowed_tokens:
                await anyio.sleep(0.01)
    assert caplog.records == []
