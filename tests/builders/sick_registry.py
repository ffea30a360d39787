"""A registry that is sick at times: a real one behind a server that refuses, or never answers."""

import io
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import anyio
from aiohttp import web

from registry_servers import Registry

HANG = 0
"""In place of a status: no answer at all."""


class SickRegistry:
    """Answers with each of the statuses once, then as the real one does.

    `to`: a pattern of the requests, METHOD /path, that are answered so.
    """

    def __init__(self, real: Registry, statuses: Iterable[int], to: str) -> None:
        self._real = real
        self._to = re.compile(to)
        self._statuses: Iterator[int] = iter(statuses)
        self.refused = 0
        self.host = ""

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as self._session:
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                self.host = f"127.0.0.1:{runner.addresses[0][1]}"
                yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        asked = self._to.match(f"{request.method} {request.path}")
        status = next(self._statuses, None) if asked else None
        if status == HANG:
            self.refused += 1
            await anyio.sleep_forever()
        if status is not None:
            self.refused += 1
            return web.Response(status=status)
        url = f"http://{self._real.host}{request.raw_path}"
        body = await request.read()
        headers = _kept(request.headers, "Content-Length")
        async with self._session.request(
            request.method, url, headers=headers, data=io.BytesIO(body), allow_redirects=False
        ) as answer:
            content = await answer.read()
            return web.Response(status=answer.status, headers=_kept(answer.headers), body=content)


def _kept(headers: Mapping[str, str], *without: str) -> dict[str, str]:
    return {n: v for n, v in headers.items() if n not in {"Transfer-Encoding", *without}}


@asynccontextmanager
async def sick_registry(
    real: Registry, statuses: Iterable[int], *, to: str = ""
) -> AsyncGenerator[SickRegistry]:
    registry = SickRegistry(real, statuses, to)
    async with registry.served():
        yield registry
