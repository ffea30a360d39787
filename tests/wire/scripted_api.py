"""A real HTTP server that answers as its script says, one handler per request."""

import ssl
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import msgspec
from aiohttp import web

from launch_async.wire.lanes import verb_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Api = TypeVar("Api", bound="ScriptedApi")


class ScriptedApi:
    """Requests that came, and the answers still to give; without one it answers `data: {}`."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.script: deque[Handler] = deque()

    def then(self, status: int = 200, body: object = None, **headers: str) -> "ScriptedApi":
        """Answer the next request so; a body that is not bytes is sent as JSON."""
        self.script.append(whole(status, body, **headers))
        return self

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        if self.script:
            return await self.script.popleft()(request)
        return web.json_response({"data": {}})


class SortedApi(ScriptedApi):
    """Answers by operation: what `by_verb` names, `data: {}` else."""

    def __init__(self) -> None:
        super().__init__()
        self.by_verb: dict[str, Handler] = {}
        self.verbs: list[str] = []
        self.arrivals: list[float] = []
        self.waiting = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.arrivals.append(anyio.current_time())
        verb = verb_of(msgspec.json.decode(await request.read())["query"])
        self.verbs.append(verb)
        if verb in self.by_verb:
            return await self.by_verb[verb](request)
        return web.json_response({"data": {}})

    async def hang(self, _: web.Request) -> web.StreamResponse:
        self.waiting += 1
        try:
            await anyio.sleep_forever()
        finally:
            self.waiting -= 1
        raise AssertionError


def whole(status: int = 200, body: object = None, **headers: str) -> Handler:
    """Always this answer; a body that is not bytes is sent as JSON."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_: web.Request) -> web.Response:
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, headers=names)
        return web.json_response(body, status=status, headers=names)

    return answer


def answering(status: int = 200, body: object = None, **headers: str) -> Handler:
    """Always this `data`, or that nothing came of it."""
    return whole(status, {"data": body or {}} if status < 400 else {"error": "no"}, **headers)


@asynccontextmanager
async def scripted_api(
    tls: ssl.SSLContext | None = None, *, api: Api | None = None
) -> AsyncGenerator[Api]:
    """Serve on a free port of the loopback."""
    api = api or ScriptedApi()
    runner = web.ServerRunner(web.Server(api.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    api.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    try:
        yield api
    finally:
        await runner.cleanup()
