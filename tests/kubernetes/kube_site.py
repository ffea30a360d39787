"""An API server that answers as a test says, for what no real one can be made to say.

async with kube_site() as site:
    site.on("GET", "/api", text(503, "not yet"), answer({"versions": ["v1"]}))
    cluster = KubeCluster(config_file=site.kubeconfig(tmp_path / "config"), environ={})
"""

import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import yaml
from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KubeSite:
    """What it is asked for and no test named is answered with 404."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.moments: list[float] = []
        self._answers: dict[tuple[str, str], list[Answer]] = {}

    @property
    def asked(self) -> list[str]:
        """Method and path of each request, in turn."""
        return [f"{one.method} {one.path}" for one in self.requests]

    @property
    def logins(self) -> list[str | None]:
        return [one.headers.get("Authorization") for one in self.requests]

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """One after the other, then the last one for ever."""
        self._answers[method, path] = list(answers)

    def kubeconfig(
        self,
        path: Path,
        user: Mapping[str, Any] | None = None,
        cluster: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        name: str = "site",
    ) -> Path:
        """Write one that leads here, with one entry of each sort."""
        entries = {
            "cluster": {"server": self.url, **(cluster or {})},
            "user": user if user is not None else {"token": "a-token"},
            "context": {"cluster": name, "user": name, **(context or {})},
        }
        said = {f"{what}s": [{"name": name, what: entry}] for what, entry in entries.items()}
        path.write_text(yaml.safe_dump({**said, "current-context": name}))
        return path

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        self.moments.append(anyio.current_time())
        self.bodies.append(await request.read())
        answers = self._answers.get((request.method, request.path), [])
        if not answers:
            return await status(404, "NotFound", f"nothing at {request.path}")(request)
        return await (answers.pop(0) if len(answers) > 1 else answers[0])(request)


def answer(said: Any) -> Answer:
    async def answering(request: web.Request) -> web.StreamResponse:
        return web.json_response(said)

    return answering


def text(code: int, body: str, **headers: str) -> Answer:
    """What no API server says, but somebody in front of it may."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answering(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text=body, headers=named)

    return answering


def status(code: int, reason: str, message: str, **headers: str) -> Answer:
    said = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return text(code, json.dumps(said), **headers)


def wants(login: str, then: Answer) -> Answer:
    """401 to anybody else."""

    async def answering(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == login:
            return await then(request)
        return await status(401, "Unauthorized", "Unauthorized")(request)

    return answering


async def hangs(request: web.Request) -> web.StreamResponse:
    await anyio.sleep_forever()
    raise AssertionError


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def streams(*pieces: bytes, then: str = "end") -> Answer:
    """Bytes as they are, and then the end, a cut connection or nothing more ("hang")."""

    async def answering(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if then == "hang":
            await anyio.sleep_forever()
        if then == "cut":
            assert request.transport is not None
            request.transport.close()
        return response

    return answering


@asynccontextmanager
async def kube_site(tls: ssl.SSLContext | None = None) -> AsyncGenerator[KubeSite]:
    site = KubeSite()
    runner = web.ServerRunner(
        web.Server(site.handle, access_log=None), shutdown_timeout=0.1, handler_cancellation=True
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme = "http" if tls is None else "https"
        site.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        yield site
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()
