"""A server that answers as a test says: a registry, its token server, or what takes their place.

async with scripted() as site:
    site.on("HEAD", "/v2/team/app/manifests/v1", manifest())
    ...
    assert site.asked == [...]
"""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from aiohttp import web

DIGEST = f"sha256:{'ab' * 32}"
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """A server on loopback; what it is asked and no test told it is answered with 404."""

    def __init__(self) -> None:
        self.host = ""
        self.scheme = "http"
        self.requests: list[web.BaseRequest] = []
        self.forms: list[dict[str, str]] = []
        self._answers: dict[tuple[str, str], Answering] = {}

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def asked(self) -> list[str]:
        """Method and path of each request, in turn."""
        return [f"{one.method} {one.path}" for one in self.requests]

    @property
    def authorizations(self) -> list[str | None]:
        return [one.headers.get("Authorization") for one in self.requests]

    def on(self, method: str, path: str, answering: Answering) -> None:
        self._answers[method, path] = answering

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if request.method == "POST":
            self.forms.append({key: str(value) for key, value in (await request.post()).items()})
        answering = self._answers.get((request.method, request.path))
        return web.Response(status=404) if answering is None else await answering(request)


def answering(status: int, *, text: str = "", headers: dict[str, str] | None = None) -> Answering:
    """Always the same."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return answer


def manifest(digest: str = DIGEST) -> Answering:
    return answering(200, headers={"Docker-Content-Digest": digest})


def in_turn(*answers: Answering) -> Answering:
    """One after the other, then the last one for ever."""
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


def wants(challenge: str, then: Answering, *, valid: Callable[[str], bool]) -> Answering:
    """401 with this challenge, unless the Authorization header is valid."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if valid(request.headers.get("Authorization", "")):
            return await then(request)
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    return answer


def hanging(reached: anyio.Event | None = None) -> Answering:
    """Never."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if reached is not None:
            reached.set()
        await anyio.sleep_forever()
        raise AssertionError

    return answer


@asynccontextmanager
async def scripted(tls: ssl.SSLContext | None = None, *, port: int = 0) -> AsyncGenerator[Site]:
    """Lend a server, with TLS if a context is given, on any free port or on this one."""
    site = Site()
    runner = web.ServerRunner(web.Server(site.handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        place = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await place.start()
        site.host = f"127.0.0.1:{runner.addresses[0][1]}"
        site.scheme = "http" if tls is None else "https"
        yield site
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()
