"""A proxy that stands before an API server, and breaks what it is told to break.

```
agent --- ApiProxy --- API server
             |
             answer   say something else: 429, 5xx, 401, 403, 410, or no JSON at all
             hang     accept, and say nothing until released
             delay    think first
             lose     let it count, then hang up without a word
             halve    hang up in the middle of the answer
             freeze   watches that go on, and bring nothing more (half open)
             inject   put a line into watches: an event of no known type, no JSON
             expire   end watches as the API server does when it forgot where they were
             cut      end watches in the middle of a line
             down     refuse connections and cut those that are open
```

Requests are known by their verb in Kubernetes' words ("*" is any) and a regular expression for any
part of their path. It serves plain HTTP; who sends no credentials has those of the kubeconfig of
the tests.
"""

import io
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
from aiohttp import web
from anyio.from_thread import BlockingPortal, start_blocking_portal
from api_requests import Seen, passed_on, read_request, status_body
from cluster_tools import Access
from yarl import URL

HOLD_SECONDS = 300.0
HALF_A_LINE = b'{"type":"MODIFIED","object":{"kind":"Job","metadata":{"na'
BODY = web.RequestKey("body", bytes)


Act = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""What is done with a request that a fault strikes; on None it is passed on."""


class Fault:
    """One thing that goes wrong while it lasts."""

    def __init__(self, verb: str, path: str, times: int | None) -> None:
        self.hits = 0
        self.seen = threading.Event()
        """At its first hit."""
        self.released = anyio.Event()
        self.act: Act
        self._verb, self._path, self._times = verb, re.compile(path), times

    def wants(self, request: Seen) -> bool:
        if self.released.is_set() or (self._times is not None and self.hits >= self._times):
            return False
        if self._verb not in {"*", request.verb} or not self._path.search(request.path):
            return False
        self.hits += 1
        self.seen.set()
        return True

    def wait(self, seconds: float = 60.0) -> None:
        """Return at its first hit."""
        assert self.seen.wait(seconds), f"nobody asked to {self._verb} {self._path.pattern}"

    async def hit(self, seconds: float = 60.0) -> None:
        """As `wait`, for coroutines."""
        await anyio.to_thread.run_sync(self.wait, seconds, abandon_on_cancel=True)


class _Stream:
    """An answer that goes on: a watch, or logs that are followed."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self.path = request.path
        self.frozen = False
        self._request, self._response = request, response
        self._scope = anyio.CancelScope()
        self._turn = anyio.Lock()
        self._last_words, self._whole = b"", True

    async def pass_on(self, content: aiohttp.StreamReader) -> None:
        """Whole lines only, so that others may be put between them."""
        rest = b""
        async with self._turn:
            await self._response.prepare(self._request)
        with self._scope:
            async for piece in content.iter_any():
                lines, end, rest = (rest + piece).rpartition(b"\n")
                await self.write(lines + end)
            await self.write(rest)
        await self.write(self._last_words)
        if not self._whole:
            hang_up(self._request)

    async def write(self, words: bytes) -> None:
        async with self._turn:
            if words and not self.frozen:
                with suppress(ConnectionResetError):  # nobody reads it any more
                    await self._response.write(words)

    async def take(self, words: bytes) -> bool:
        """Tell whether the client was still there."""
        try:
            await self.write(words)
        except ConnectionError:
            return False
        return True

    def end(self, last_words: bytes, *, whole: bool) -> None:
        self._last_words, self._whole = last_words, whole
        self._scope.cancel()


class ApiProxy:
    """Serves on a loopback port. Its methods are for other threads than its own."""

    def __init__(self, access: Access) -> None:
        self.requests: list[Seen] = []
        self.port = 0
        self._access = access
        self._faults: list[Fault] = []
        self._streams: set[_Stream] = set()
        self._portal: BlockingPortal
        self._session: aiohttp.ClientSession
        self._runner: web.AppRunner

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def streams(self) -> int:
        """Watches and followed logs that are open."""
        return len(self._streams)

    def count(self, verb: str = "*", path: str = "") -> int:
        """Return how many such requests came; `path` is a regular expression."""
        wanted = re.compile(path)
        return sum(
            verb in {"*", seen.verb} and wanted.search(seen.path) is not None
            for seen in list(self.requests)
        )

    def counts(self) -> Counter[str]:
        """Return the requests by `VERB RESOURCE`: `watch pods`, `create jobs`."""
        return Counter(f"{seen.verb} {seen.resource}" for seen in list(self.requests))

    def write_kubeconfig(
        self, path: Path, *, token: str | None = None, namespace: str | None = None
    ) -> Path:
        """Write one that leads here; without a token the proxy's own credentials count."""
        context = {"cluster": "proxy", "user": "user"} | (
            {"namespace": namespace} if namespace else {}
        )
        said = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "user", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "proxy", "context": context}],
            "current-context": "proxy",
        }
        path.write_text(json.dumps(said))
        path.chmod(0o600)
        return path

    @contextmanager
    def answer(
        self,
        verb: str,
        path: str,
        status: int,
        *,
        reason: str | None = None,
        message: str = "planned",
        retry_after: float | None = None,
        body: bytes | None = None,
        in_stream: bool = False,
        times: int | None = None,
    ) -> Iterator[Fault]:
        """Say this; the server hears nothing of it. `in_stream`: as the event of a good watch."""
        said = status_body(status, message, reason)
        if in_stream:
            said, status = json.dumps({"type": "ERROR", "object": json.loads(said)}).encode(), 200
        headers = {"Content-Type": "application/json"}
        if retry_after is not None:
            headers["Retry-After"] = f"{retry_after:g}"

        async def act(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers=headers, body=said if body is None else body)

        with self._broken(verb, path, times, lambda fault: act) as fault:
            yield fault

    @contextmanager
    def hang(self, verb: str, path: str, *, times: int | None = None) -> Iterator[Fault]:
        """Accept, and say nothing while the block lasts; what still waits then goes on."""
        with self.delay(verb, path, HOLD_SECONDS, times=times) as fault:
            yield fault

    @contextmanager
    def delay(
        self, verb: str, path: str, seconds: float, *, times: int | None = None
    ) -> Iterator[Fault]:
        """Think for so long before each such request is passed on."""

        def waits(fault: Fault) -> Act:
            async def act(request: web.Request) -> None:
                with anyio.move_on_after(seconds):
                    await fault.released.wait()

            return act

        with self._broken(verb, path, times, waits) as fault:
            yield fault

    @contextmanager
    def lose(self, verb: str, path: str, *, times: int | None = None) -> Iterator[Fault]:
        """Requests count, and their answers are lost."""

        async def act(request: web.Request) -> web.StreamResponse:
            async with self._ask(request) as answer:
                await answer.read()
            return hang_up(request)

        with self._broken(verb, path, times, lambda fault: act) as fault:
            yield fault

    @contextmanager
    def halve(self, verb: str, path: str, *, times: int | None = None) -> Iterator[Fault]:
        """Answers break off in the middle."""

        async def act(request: web.Request) -> web.StreamResponse:
            async with self._ask(request) as answer:
                said = await answer.read()
            half = web.StreamResponse(status=answer.status, headers=passed_on(answer.headers))
            half.content_length = len(said)
            await half.prepare(request)
            await half.write(said[: len(said) // 2])
            hang_up(request)
            return half

        with self._broken(verb, path, times, lambda fault: act) as fault:
            yield fault

    @contextmanager
    def freeze(self, path: str) -> Iterator[None]:
        """Watches that are open bring nothing more, and do not end; they are cut afterwards."""
        frozen = self._matching(path)
        for stream in frozen:
            stream.frozen = True
        try:
            yield
        finally:
            for stream in frozen:
                self._portal.call(partial(stream.end, b"", whole=False))

    def inject(self, path: str, line: bytes) -> int:
        """Put a line into the watches that are open; return how many took it."""
        return sum(self._portal.call(stream.take, line + b"\n") for stream in self._matching(path))

    def expire(self, path: str) -> int:
        """End open watches with the event that says that they are too old."""
        gone = json.loads(status_body(410, "too old resource version: 1 (2)"))
        line = json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
        return self._end_all(path, line, whole=True)

    def cut(self, path: str, *, in_line: bool = True) -> int:
        """End open watches in the middle of a line, else as a time limit of the server does."""
        return self._end_all(path, HALF_A_LINE if in_line else b"", whole=not in_line)

    @contextmanager
    def down(self) -> Generator[None, None, None]:
        """Nobody listens while the block lasts."""
        self._portal.call(self._close)
        try:
            yield
        finally:
            self._portal.call(self._listen)

    @asynccontextmanager
    async def serving(self, portal: BlockingPortal) -> AsyncGenerator[None]:
        self._portal = portal
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        connector = aiohttp.TCPConnector(limit=0, ssl=self._access.tls or False)
        patience = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(
            connector=connector, timeout=patience, auto_decompress=False
        ) as self._session:
            try:
                await self._listen()
                yield
            finally:  # before the session: what its requests open meanwhile is closed with it
                for fault in self._faults:
                    fault.released.set()
                await self._close()
                await self._runner.cleanup()

    async def _listen(self) -> None:
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        for site in list(self._runner.sites):
            await site.stop()
        for connection in list(self._runner.server.connections if self._runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()

    @contextmanager
    def _broken(
        self, verb: str, path: str, times: int | None, act: Callable[[Fault], Act]
    ) -> Iterator[Fault]:
        fault = self._portal.call(Fault, verb, path, times)
        fault.act = act(fault)
        self._faults.append(fault)
        try:
            yield fault
        finally:
            self._portal.call(fault.released.set)
            self._faults.remove(fault)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        seen = read_request(request)
        self.requests.append(seen)
        try:
            fault = next((one for one in list(self._faults) if one.wants(seen)), None)
            answered = await fault.act(request) if fault is not None else None
            return answered or await self._pass_on(request, seen)
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return hang_up(request)

    async def _pass_on(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        async with self._ask(request) as answer:
            headers = passed_on(answer.headers)
            if seen.verb != "watch" and seen.query.get("follow") != "true":
                body = await answer.read()
                return web.Response(status=answer.status, headers=headers, body=body)
            response = web.StreamResponse(status=answer.status, headers=headers)
            stream = _Stream(request, response)
            self._streams.add(stream)
            try:
                await stream.pass_on(answer.content)
            finally:
                self._streams.discard(stream)
            return response

    @asynccontextmanager
    async def _ask(self, request: web.Request) -> AsyncGenerator[aiohttp.ClientResponse]:
        body = await request.read()
        async with self._session.request(
            request.method,
            URL(self._access.server + request.raw_path, encoded=True),
            headers={**self._access.headers, **passed_on(request.headers)},
            data=io.BytesIO(body) if body else None,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        ) as answer:
            try:
                yield answer
            finally:  # left in its middle: the loop may end before a farewell of TLS does
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()

    def _matching(self, path: str) -> list[_Stream]:
        wanted = re.compile(path)
        return [one for one in list(self._streams) if wanted.search(one.path)]

    def _end_all(self, path: str, last_words: bytes, *, whole: bool) -> int:
        found = self._matching(path)
        for stream in found:
            self._portal.call(partial(stream.end, last_words, whole=whole))
        return len(found)


@contextmanager
def api_proxy(access: Access) -> Iterator[ApiProxy]:
    """Served by a thread, for tests that block and for those that do not."""
    proxy = ApiProxy(access)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(proxy.serving(portal)),
    ):
        yield proxy


def hang_up(request: web.Request) -> web.StreamResponse:
    """What was said arrives, and nothing more."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()
