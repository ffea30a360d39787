"""A registry that wants a login and is sick when it is told to be, before a real open one."""

import base64
import io
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import anyio
from aiohttp import web
from anyio.from_thread import start_blocking_portal

from registry_servers import Registry

HANG = 0
"""In place of a status: no answer until released."""
USERNAME = "bot"


class Refusal:
    """What is said to some requests instead of the real answer."""

    def __init__(self, method: str, part: str, status: int, *, times: int, after: float) -> None:
        self.status = status
        self.retry_after = after
        self.left = times
        self.hits: list[float] = []
        self.hit = threading.Event()
        self.released = False
        self._method = method
        self._part = part

    def wants(self, request: web.Request) -> bool:
        if self.released or self.left <= 0:
            return False
        if request.method != self._method or self._part not in request.path:
            return False
        self.left -= 1
        self.hits.append(time.monotonic())
        self.hit.set()
        return True


class RegistryGate:
    """`password` may change at any time, as a token that ran out."""

    def __init__(self, real: Registry, password: str) -> None:
        self.password = password
        self.host = ""
        self.seen: list[str] = []
        """`METHOD path status` of each request."""
        self.before: Callable[[str], object] = lambda _: None
        """Called with `METHOD path` of each request before anything is made of it."""
        self._real = real
        self._refusals: list[Refusal] = []

    def refuse(
        self, method: str, part: str, status: int, *, times: int = 10**6, retry_after: float = 0
    ) -> Refusal:
        """Say this to requests with `part` in their path."""
        refusal = Refusal(method, part, status, times=times, after=retry_after)
        self._refusals.append(refusal)
        return refusal

    def heal(self) -> None:
        for refusal in self._refusals:
            refusal.released = True

    async def answer(self, request: web.Request) -> web.Response:
        self.before(f"{request.method} {request.path}")
        answer = await self._answer(request)
        self.seen.append(f"{request.method} {request.path} {answer.status}")
        return answer

    async def _answer(self, request: web.Request) -> web.Response:
        login = base64.b64encode(f"{USERNAME}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {login}":
            body = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
            headers = {"WWW-Authenticate": 'Basic realm="gate"'}
            return web.json_response(body, status=401, headers=headers)
        refusal = next((one for one in self._refusals if one.wants(request)), None)
        if refusal is not None and refusal.status == HANG:
            while not refusal.released:
                await anyio.sleep(0.05)
        elif refusal is not None:
            after = {"Retry-After": f"{refusal.retry_after:g}"} if refusal.retry_after else {}
            return web.Response(status=refusal.status, headers=after)
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.Response:
        dropped = {"content-length", "authorization", "transfer-encoding"}
        kept = {name: text for name, text in request.headers.items() if name.lower() not in dropped}
        url = f"http://{self._real.host}{request.raw_path}"
        read = await request.read()
        body = io.BytesIO(read) if read else None
        async with self._session.request(
            request.method,
            url,
            headers=kept,
            data=body,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            headers = answer.headers.copy()
            if request.method != "HEAD":
                headers.popall("Content-Length", None)
            headers.popall("Transfer-Encoding", None)
            return web.Response(status=answer.status, headers=headers, body=content)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as self._session:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.host = f"127.0.0.1:{runner.addresses[0][1]}"
                yield
        finally:
            self.heal()
            await runner.cleanup()


@contextmanager
def registry_gate(real: Registry, password: str) -> Iterator[RegistryGate]:
    """Served by a thread, for tests that block."""
    gate = RegistryGate(real, password)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(gate.serving()):
        yield gate
