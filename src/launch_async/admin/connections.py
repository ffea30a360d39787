"""How many connections the endpoint holds open: who asks nothing makes room for who does.

Each costs a descriptor, of which the agent needs some for its jobs. So that probes are answered
whoever else connects, one connection too many ends the one that has been idle for longest.
"""

import asyncio
from typing import cast

from aiohttp import web

from launch_async.admin.access import Handler

MAX_CONNECTIONS = 128
"""More than answers and followed logs under way at once, so one of them is always idle."""
IDLE_SECONDS = 30.0
"""Between two requests of one connection, and before its first."""


class Connections:
    """The open ones; `listen` lets them in, `middleware` knows which are being answered."""

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._idle: dict[web.RequestHandler, asyncio.Transport] = {}
        """The longest idle first."""
        self._answered: dict[web.RequestHandler, asyncio.Transport] = {}

    async def listen(self, server: web.Server, *, host: str, port: int) -> asyncio.Server:
        """Listen for the server, which answers what is let in.

        Raises:
            OSError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Gate(server(), self), host, port)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """While a request is answered its connection is not idle."""
        connection = request.protocol
        transport = self._idle.pop(connection, None)
        if transport is not None:
            self._answered[connection] = transport
        try:
            return await handler(request)
        finally:
            transport = self._answered.pop(connection, None)
            if transport is not None:
                self._idle[connection] = transport

    def opened(self, connection: web.RequestHandler, transport: asyncio.Transport) -> bool:
        """Whether it may stay."""
        if len(self._idle) + len(self._answered) >= self._most:
            longest = next(iter(self._idle), None)
            if longest is None:
                return False
            self._idle.pop(longest).abort()
        self._idle[connection] = transport
        return True

    def closed(self, connection: web.RequestHandler) -> None:
        """It is gone."""
        self._idle.pop(connection, None)
        self._answered.pop(connection, None)


class _Gate(asyncio.Protocol):
    """Passes everything on to aiohttp's part of a connection, once it is let in."""

    def __init__(self, inner: web.RequestHandler, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._is_in = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        socket = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._is_in = self._connections.opened(self._inner, socket)
        if self._is_in:
            self._inner.connection_made(transport)
        else:
            socket.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_in:
            self._connections.closed(self._inner)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in:
            self._inner.data_received(data)

    def eof_received(self) -> None:
        self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
