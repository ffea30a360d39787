"""Stands between an agent and the server, and counts what the agent asks."""

import asyncio
import json
import re
import threading
from collections import Counter
from typing import Self

import aiohttp
from aiohttp import web

_FIRST_FIELD = re.compile(r"\{\s*(?:\w+\s*:\s*)?(\w+)")
_HOP = frozenset({"connection", "content-length", "host", "transfer-encoding", "content-encoding"})


class CountingProxy:
    """Forwards HTTP to `upstream` from a port of its own, in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._asked: Counter[str] = Counter()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the proxy does not listen"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def asked(self) -> Counter[str]:
        """GraphQL requests so far, by the first field asked for."""
        return Counter(dict(self._asked))

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            self._session = session
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            self.url = f"http://localhost:{port}"
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/graphql":
            found = _FIRST_FIELD.search(json.loads(body)["query"])
            self._asked[found[1] if found else "?"] += 1
        head = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self._session.request(
            request.method, self._upstream + request.raw_path, headers=head, data=body
        ) as answer:
            content = await answer.read()
            kept = {n: v for n, v in answer.headers.items() if n.lower() not in _HOP}
            if "Content-Encoding" in answer.headers:
                kept["Content-Encoding"] = answer.headers["Content-Encoding"]
            return web.Response(status=answer.status, body=content, headers=kept)
