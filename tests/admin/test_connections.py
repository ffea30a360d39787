"""How many connections are open at once, and which of them goes for a new one."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest

from launch_async.admin.connections import MAX_CONNECTIONS
from operated_agent import OperatedAgent, a_view, address, an_item, endpoint, get

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 10.0
MOST = 8


@asynccontextmanager
async def connected(
    session: aiohttp.ClientSession, count: int
) -> AsyncGenerator[list[socket.socket]]:
    """Connections that ask nothing."""
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(socket.socket())
            made[-1].setblocking(False)
            await asyncio.get_running_loop().sock_connect(made[-1], address(session))
        yield made
    finally:
        for connection in made:
            connection.close()


def is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        while not condition():
            await anyio.sleep(0.01)


async def test_a_thousand_that_ask_nothing_leave_room_for_who_asks():
    async with endpoint(OperatedAgent()) as session, connected(session, 1000) as idle:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await get(session, path))[0] == 200
        assert sum(map(is_open, idle)) < MAX_CONNECTIONS


async def test_the_longest_idle_goes_first():
    async with (
        endpoint(OperatedAgent(), max_connections=MOST) as session,
        connected(session, MOST) as older,
        connected(session, 3) as newer,
    ):
        await until(lambda: [is_open(one) for one in older] == [False] * 3 + [True] * 5)
        assert all(map(is_open, newer))


async def test_one_that_is_being_answered_stays():
    agent = OperatedAgent()
    agent.now = a_view(items=(an_item(1),))
    async with (
        endpoint(agent, max_connections=MOST) as session,
        session.get("/items/item-1/logs?follow=1") as followed,
    ):
        assert await followed.content.readline() == b"first\n"
        async with connected(session, 3 * MOST) as idle:
            await until(lambda: sum(map(is_open, idle)) == MOST - 1)
            agent.released.set()
            assert await followed.content.read() == b"last\n"


async def test_when_all_are_being_answered_the_next_is_turned_away():
    agent = OperatedAgent()
    agent.now = a_view(items=(an_item(1),))
    request = b"GET /items/item-1/logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with endpoint(agent, max_connections=MOST) as session:
        async with connected(session, MOST) as busy:
            for connection in busy:
                connection.sendall(request)
            await until(lambda: agent.followers == MOST)
            async with connected(session, 1) as turned_away:
                await until(lambda: not is_open(turned_away[0]))
            assert agent.followers == MOST
            agent.released.set()
        await until(lambda: agent.followers == 0)
        assert (await get(session, "/livez"))[0] == 200


@pytest.mark.parametrize("begun", [b"", b"GET /livez HTTP/1.1\r\nHost"])
async def test_one_that_asks_nothing_for_long_is_closed(begun: bytes):
    async with endpoint(OperatedAgent(), idle_seconds=0.2) as session:
        async with connected(session, 1) as idle:
            idle[0].sendall(begun)
            await until(lambda: not is_open(idle[0]))
        assert (await get(session, "/livez"))[0] == 200


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET /items/" + b"a" * 9000, b"GET /items/\xff HTTP/1.1\r\n\r\n"]
)
async def test_who_speaks_no_http_fills_no_log(sent: bytes, caplog: pytest.LogCaptureFixture):
    async with (
        endpoint(OperatedAgent()) as session,
        await anyio.connect_tcp(*address(session)) as stream,
    ):
        await stream.send(sent)
        assert b" 400 " in await stream.receive()
    assert caplog.records == []
