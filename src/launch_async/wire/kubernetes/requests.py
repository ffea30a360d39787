"""Requests to one API server over aiohttp, each made once, its failures sorted by who must act."""

import os
import re
import socket
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import aiohttp
import anyio
import msgspec
from yarl import URL

from launch_async import __version__
from launch_async.domain.errors import ConfigError, Unavailable
from launch_async.wire.bulkhead import Bulkhead
from launch_async.wire.kubernetes.access import Access, Way
from launch_async.wire.kubernetes.errors import BrokenOff, Silence, refusal, status_of
from launch_async.wire.network import CA_VARIABLES
from launch_async.wire.throttling import retry_after_seconds

CALL_SECONDS = 30.0
CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 256 << 20
"""Of one page; a page has 500 objects, of at most 1.5 MiB each, and usually of a few KiB."""
MAX_LINE_BYTES = 32 << 20
PIECE_BYTES = 64 * 1024

MAX_STATUS_BYTES = 1 << 20

MAX_WARNING = 500
MAX_WARNINGS = 20

_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_FAREWELL_SECONDS = 0.25
"""For the other side's word that a TLS connection has ended: aiohttp waits for none of those that
were broken off."""
_SICK = frozenset({408, 502, 503, 504})
"""A 500 is not among them: one object's webhook that fails is answered so too."""


class Failed(Exception):
    """No answer that helps; another time may."""

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        certain: bool = False,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.certain = certain
        """Whether the request certainly did nothing."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request."""

    method: str
    path: str
    verb: str
    """For metrics."""
    params: Mapping[str, str] = {}
    body: bytes | None = None
    content_type: str = "application/json"
    repeatable: bool = True
    """Whether twice does no harm."""

    @property
    def caller(self) -> object:
        """The same for the same request: its repetition is no second witness of an outage."""
        return (self.verb, self.path)


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    body: bytes
    warnings: tuple[str, ...]
    """Of deprecated versions, and of pods that the namespace's Pod Security will not admit."""


class Stream(msgspec.Struct, frozen=True):
    """A request whose answer goes on."""

    request: Request
    idle_seconds: float | None
    """How long it may bring nothing; None: for ever."""


class Requests:
    """Makes them, through one session that opens at its first use."""

    def __init__(
        self, access: Access, bulkhead: Bulkhead, *, call_seconds: float = CALL_SECONDS
    ) -> None:
        """`call_seconds`: in which a call must end, and a stream begin."""
        self._access = access
        self._bulkhead = bulkhead
        self._call_seconds = call_seconds
        self._limits = aiohttp.ClientTimeout(total=call_seconds, sock_connect=CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Give back all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await anyio.sleep(_FAREWELL_SECONDS)

    async def once(self, request: Request) -> Answer:
        """The answer.

        Raises:
            KubeRefused: a 4xx.
            Failed: 429, 5xx, silence.
            Unavailable: held back, or our login is refused or cannot be had.
        """
        async with self._bulkhead.place(), await self._send(request, self._limits) as response:
            try:
                body = await _bounded(response)
                return Answer(body, _warnings(response.headers.getall("Warning", ())))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = Failed(f"{_label(response)} broke off its answer ({_why(error)})")
            raise failure

    async def lines(self, stream: Stream) -> AsyncGenerator[bytes, None]:
        """Its whole lines, first an empty one: it is open. Not counted by the rate."""
        self._bulkhead.admit()
        async with await self._begin(stream) as response:
            yield b""
            held: list[bytes] = []
            size = 0
            async with aclosing(_until_silent(response, None, stream)) as chunks:
                async for chunk in chunks:
                    first, *others = chunk.split(b"\n")
                    held.append(first)
                    size += len(first)
                    if size > MAX_LINE_BYTES:
                        msg = f"{_label(response)} sent a line of more than {MAX_LINE_BYTES} bytes"
                        raise Unavailable(msg)
                    if not others:
                        continue
                    yield b"".join(held)
                    for line in others[:-1]:
                        yield line
                    held, size = [others[-1]], len(others[-1])

    async def pieces(self, stream: Stream) -> AsyncGenerator[bytes, None]:
        """Its bytes as they come."""
        async with self._bulkhead.place():
            response = await self._begin(stream)
        async with response, aclosing(_until_silent(response, PIECE_BYTES, stream)) as pieces:
            async for piece in pieces:
                yield piece

    async def _begin(self, stream: Stream) -> aiohttp.ClientResponse:
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=stream.idle_seconds
        )
        request = stream.request
        try:
            with anyio.fail_after(self._call_seconds):
                return await self._send(request, limits)
        except Failed as failure:
            raise Unavailable(
                failure.text, retry_after_seconds=failure.retry_after_seconds
            ) from failure
        except TimeoutError as error:
            text = f"the Kubernetes API server did not begin {request.path} in time"
            self._bulkhead.failed(request.verb, None, caller=request.caller, reason=text)
            raise Unavailable(text) from error

    async def _send(
        self, request: Request, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """The beginning of a good answer; a refused login is replaced once."""
        try:
            way = await self._access.way()
        except ConfigError as error:
            raise Unavailable(str(error)) from error
        response = await self._send_by(way, request, limits)
        try:
            if response.status == HTTPStatus.UNAUTHORIZED:
                other = await self._another(way, _label(response))
                if other is not None:
                    response.close()
                    response = await self._send_by(other, request, limits)
            await self._judge(request, response)
        except BaseException:
            response.close()
            raise
        return response

    async def _another(self, refused: Way, label: str) -> Way | None:
        try:
            return await self._access.another(refused)
        except (ConfigError, Unavailable) as error:
            msg = f"{label} answered 401, and another login cannot be had: {error}"
            raise Unavailable(msg) from error

    async def _send_by(
        self, way: Way, request: Request, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        headers = {name: value.reveal() for name, value in way.headers.items()}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        began = anyio.current_time()
        try:
            return await self._session_now().request(
                request.method,
                URL(way.server + request.path),
                params=request.params,
                data=request.body,
                headers=headers,
                proxy=way.proxy,
                ssl=way.ssl,
                server_hostname=way.server_name,
                timeout=limits,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            failure = _failure(way.server, error)
        # Outside of the handler: some of aiohttp's errors carry the request's headers.
        self._bulkhead.failed(
            request.verb, None, caller=request.caller, reason=failure.text, began=began
        )
        raise failure

    async def _judge(self, request: Request, response: aiohttp.ClientResponse) -> None:
        code, bulkhead = response.status, self._bulkhead
        if HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES:
            bulkhead.answered(request.verb, code)
            return
        status = status_of(await _words(response))
        text = (
            f"{_label(response)} answered {code}: {(status.message or response.reason or '')[:500]}"
        )
        asked = retry_after_seconds(response.headers) or status.retry_after_seconds
        if code == HTTPStatus.TOO_MANY_REQUESTS:
            bulkhead.throttled(request.verb, asked)
            raise Failed(text, retry_after_seconds=asked, certain=True)
        if code in _SICK:
            if code == HTTPStatus.SERVICE_UNAVAILABLE and asked:
                bulkhead.hold(asked)
            bulkhead.failed(request.verb, code, caller=request.caller, reason=text)
            raise Failed(text, retry_after_seconds=asked)
        bulkhead.answered(request.verb, code)
        if code == HTTPStatus.UNAUTHORIZED:
            raise Unavailable(f"{text}. It takes our login no longer, or not yet: log in anew")
        if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Failed(text, retry_after_seconds=asked)
        if code < HTTPStatus.BAD_REQUEST:
            raise Unavailable(f"{text}. That is no API server's answer: correct its address")
        raise refusal(code, status)

    def _session_now(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # The bulkhead's places are the limit: watches would take those of a pool.
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=60.0, socket_factory=_watched_socket
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"launch-async/{__version__}", "Accept": "application/json"},
            )
        return self._session


def _watched_socket(address: Any) -> socket.socket:
    """One on which a peer that is gone is noticed in a minute, also while nothing is sent."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return made


async def _until_silent(
    response: aiohttp.ClientResponse, piece_bytes: int | None, stream: Stream
) -> AsyncGenerator[bytes, None]:
    content = response.content
    chunks = content.iter_any() if piece_bytes is None else content.iter_chunked(piece_bytes)
    try:
        async for chunk in chunks:
            yield chunk
        return
    except TimeoutError:
        failure: Unavailable = Silence(
            f"{_label(response)} brought nothing for {stream.idle_seconds or 0:.0f} s"
        )
    except (aiohttp.ClientError, OSError) as error:
        failure = BrokenOff(f"{_label(response)} broke off ({_why(error)})")
    raise failure


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body; `read()` has no bound."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            msg = f"{_label(response)} sent an answer of more than {MAX_ANSWER_BYTES >> 20} MiB"
            raise Unavailable(msg)
        chunks.append(chunk)
    return b"".join(chunks)


async def _words(response: aiohttp.ClientResponse) -> bytes:
    """What an answer that is none says; not more than a `Status` is long."""
    words = bytearray()
    try:
        async for chunk in response.content.iter_any():
            words += chunk
            if len(words) > MAX_STATUS_BYTES:
                break
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass  # its code says enough
    return bytes(words)


def _warnings(headers: Iterable[str]) -> tuple[str, ...]:
    """The texts in `299 - "text"`, of which a header may hold several."""
    found = (text for header in headers for text in _WARNING.findall(header))
    return tuple(re.sub(r"\\(.)", r"\1", text)[:MAX_WARNING] for text in found)[:MAX_WARNINGS]


def _label(response: aiohttp.ClientResponse) -> str:
    return f"the Kubernetes API server {response.url.origin()}"


def _why(error: Exception) -> str:
    """In the system's words; asyncio's own repeat the address."""
    number = getattr(error, "errno", None)
    if number is not None and number > 0:
        return os.strerror(number)
    return getattr(error, "strerror", None) or type(error).__name__


def _failure(server: str, error: Exception) -> Failed:
    label = f"the Kubernetes API server {server}"
    match error:
        case aiohttp.ClientConnectorCertificateError():
            text = f"{label} cannot be trusted ({error.certificate_error}): correct the"
            return Failed(f"{text} certificate-authority of its entry, or {CA_VARIABLES[0]}")
        case aiohttp.ClientHttpProxyError():
            return Failed(f"{label} cannot be reached: the proxy answered {error.status}")
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            remedy = "is it up, and is its address right?"
            text = f"{label} cannot be reached ({_why(error)}): {remedy}"
            return Failed(text, certain=True)
        case TimeoutError():
            return Failed(f"{label} did not answer in time")
        case _:
            return Failed(f"{label} cannot be reached ({_why(error)})")
