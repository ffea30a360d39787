"""GraphQL over aiohttp: one session, bounded retries, errors sorted by who must act.

Each request goes in its lane (`wire/lanes.py`). Retried: no connection, timeouts, 408, 429 and 5xx
but 501, with jitter, honouring Retry-After and rate-limit headers [source: the wandb client's own
rules, wire-contract.md §1.6]. Refused keys make the agent unfit.

A status and its headers count whatever the body says: a 429, and a Retry-After of a 503, hold back
the calls that come next. What a GraphQL answer with an error's status brought is used nevertheless,
if the caller takes answers in parts and each error names its part: it was done, and leased items
are lost for a minute else.
"""

import io
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import aiohttp
import anyio
import msgspec
import structlog
from yarl import URL

from launch_async import __version__
from launch_async.domain.errors import AgentUnfit, LaunchError, Unavailable
from launch_async.domain.secret import Secret
from launch_async.wire.answers import (
    Parts,
    decode_answer,
    error_text,
    error_text_of,
    has_parts,
    parts_of,
)
from launch_async.wire.bulkhead import Bulkhead
from launch_async.wire.lanes import TRIES, VERBS, Lane, Lanes, verb_of
from launch_async.wire.network import CA_VARIABLES, proxy_for, tls_of
from launch_async.wire.throttling import remaining_calls, retry_after_seconds

CALL_TIMEOUT_SECONDS = 30.0
MAX_TRIES = 6
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
MAX_ANSWER_BYTES = 64 << 20
MAX_WAIT_SECONDS = 60.0
"""The longest Retry-After that a call sits out itself; its caller hears of a longer one."""
CONNECT_SECONDS = 30.0
STALL_SECONDS = 60.0
"""A file may take longer than a call, but not be without a byte for so long."""
BYTES_PER_STALL = 2 << 20
"""Of a file at least so many go in `STALL_SECONDS`: a reader that stops reading is no silence."""

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class RequestRefused(LaunchError):
    """The API understood the request and said no; its text is the service's own."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Failed(Exception):
    def __init__(
        self, text: str, *, status: int | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its lane."""

    method: str
    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    read: Callable[[aiohttp.ClientResponse], Awaitable[bytes]] | None = None
    lane: Lane
    verb: str
    in_parts: bool = False
    """Whether an answer that is an error in part is an answer."""
    size: int = 0
    """Of a file, at most."""

    @property
    def caller(self) -> object:
        """The same for the same request: its repetition is no second witness of an outage."""
        return (self.verb, hash(self.body) if self.method == "POST" else urlsplit(self.url).path)


class _Answer(msgspec.Struct, frozen=True):
    """What is read of an answer that helps."""

    content: bytes
    status: int
    retry_after_seconds: float | None


class Transport:
    """One client of one API. Open it with `async with Transport.open(...)`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        base_url: str,
        api_key: Secret[str],
        max_tries: int = MAX_TRIES,
        stall_seconds: float = STALL_SECONDS,
        lanes: Lanes | None = None,
    ) -> None:
        self._session = session
        self._authorization = Secret(aiohttp.encode_basic_auth("api", api_key.reveal()))
        self._max_tries = max_tries
        self._stall_seconds = stall_seconds
        self.lanes = lanes or Lanes.unlimited()
        self.base_url = base_url

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        base_url: str,
        api_key: Secret[str],
        ca_file: Path | None = None,
        max_tries: int = MAX_TRIES,
        call_timeout_seconds: float = CALL_TIMEOUT_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        lanes: Lanes | None = None,
    ) -> AsyncGenerator[Self, None]:
        """A transport that lives as long as the block.

        Raises:
            ConfigError: `ca_file` is not a bundle of certificates.
        """
        # The lanes' places are the limit: a pool of its own would make lanes wait for each other.
        connector = aiohttp.TCPConnector(limit=0, ssl=tls_of(ca_file))
        async with aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": f"launch-async/{__version__}"},
            timeout=aiohttp.ClientTimeout(total=call_timeout_seconds),
            requote_redirect_url=False,
        ) as session:
            yield cls(
                session,
                base_url=base_url,
                api_key=api_key,
                max_tries=max_tries,
                stall_seconds=stall_seconds,
                lanes=lanes,
            )

    async def execute(
        self,
        document: str,
        variables: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The `data` of one GraphQL operation.

        Raises:
            RequestRefused: the API answered with errors.
            AgentUnfit: the key was refused.
            Unavailable: no useful answer after all tries.
        """
        answer = await self._asked(document, variables, headers=headers or {})
        if answer.get("errors"):
            raise RequestRefused(error_text(answer), status=HTTPStatus.OK)
        data: dict[str, Any] = answer["data"]
        return data

    async def execute_in_parts(self, document: str, variables: Mapping[str, Any]) -> Parts:
        """One GraphQL operation whose fields succeed and fail apart.

        Raises:
            RequestRefused: the API refused the whole of it.
            AgentUnfit, Unavailable: as `execute`.
        """
        answer = await self._asked(document, variables, headers={}, in_parts=True)
        parts = parts_of(answer)
        if parts is None:
            raise RequestRefused(error_text(answer), status=HTTPStatus.OK)
        return parts

    async def _asked(
        self,
        document: str,
        variables: Mapping[str, Any],
        *,
        headers: Mapping[str, str],
        in_parts: bool = False,
    ) -> dict[str, Any]:
        """The answer to a GraphQL operation, whose `data` is an object."""
        verb = verb_of(document)
        content = await self._tried(
            _Request(
                method="POST",
                url=f"{self.base_url}/graphql",
                body=msgspec.json.encode({"query": document, "variables": variables}),
                headers=headers,
                lane=VERBS.get(verb, Lane.CALLS),
                verb=verb,
                in_parts=in_parts,
            )
        )
        try:
            answer = decode_answer(content)
        except ValueError as error:
            msg = f"{self.base_url} did not answer with JSON; is it a W&B API?"
            raise Unavailable(msg) from error
        if answer is None:
            msg = f"{self.base_url} did not answer as a GraphQL API does; is it a W&B API?"
            raise Unavailable(msg)
        return answer

    async def put(self, url: str, content: bytes, headers: Mapping[str, str]) -> None:
        """Upload to an address that the API handed out; it carries its own authorisation.

        Raises:
            RequestRefused, Unavailable: as `execute`.
        """
        await self._tried(
            _Request(
                method="PUT",
                url=url,
                body=content,
                headers=headers,
                lane=Lane.FILES,
                verb="put",
                size=len(content),
            )
        )

    async def download(self, url: str, into: Path, *, max_bytes: int) -> None:
        """Stream an address that the API handed out into the file `into`.

        Raises:
            RequestRefused: as `execute`, or there came more than `max_bytes`.
            Unavailable: as `execute`.
        """

        async def save(response: aiohttp.ClientResponse) -> bytes:
            size = 0
            async with await anyio.open_file(into, "wb") as file:
                async for chunk in response.content.iter_chunked(1 << 20):
                    size += len(chunk)
                    if size > max_bytes:
                        msg = f"it is larger than the {max_bytes} bytes that it should have"
                        raise RequestRefused(msg, status=response.status)
                    await file.write(chunk)
            return b""

        await self._tried(
            _Request(method="GET", url=url, read=save, lane=Lane.FILES, verb="get", size=max_bytes)
        )

    async def _tried(self, request: _Request) -> bytes:
        lane = self.lanes[request.lane]
        tries = min(self._max_tries, TRIES.get(request.lane, self._max_tries))
        pause = FIRST_PAUSE_SECONDS
        attempt = 1
        while True:
            try:
                return await self._in_lane(request, lane)
            except _Failed as failure:
                wait = failure.retry_after_seconds or pause * random.uniform(0.75, 1.25)  # noqa: S311
                if attempt == tries or wait > MAX_WAIT_SECONDS:
                    raise Unavailable(
                        f"{self.base_url} {failure.text}; tried {_times(attempt)}",
                        retry_after_seconds=failure.retry_after_seconds,
                    ) from failure
                log.debug("request repeated", reason=failure.text, attempt=attempt, in_seconds=wait)
            await anyio.sleep(wait)
            lane.repeated()
            pause = min(pause * 2, MAX_PAUSE_SECONDS)
            attempt += 1

    async def _in_lane(self, request: _Request, lane: Bulkhead) -> bytes:
        """One request, of whose outcome the lane learns."""
        async with lane.place():
            began = anyio.current_time()
            verb, caller = request.verb, request.caller
            try:
                answer = await self._once(request, lane)
            except _Failed as error:
                if error.status == HTTPStatus.TOO_MANY_REQUESTS:
                    lane.throttled(verb, error.retry_after_seconds)
                else:
                    lane.failed(verb, error.status, caller=caller, reason=error.text, began=began)
                raise
            except RequestRefused as error:
                lane.answered(verb, error.status)
                raise
            except AgentUnfit:
                lane.answered(verb, HTTPStatus.UNAUTHORIZED)
                raise
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                lane.throttled(verb, answer.retry_after_seconds)
            else:
                lane.answered(verb, answer.status)
            return answer.content

    async def _once(self, request: _Request, lane: Bulkhead) -> _Answer:
        # As it was handed out: a signature counts every character.
        address = URL(request.url, encoded=True) if request.url.isascii() else URL(request.url)
        try:
            async with self._session.request(
                request.method, address, **self._options(request)
            ) as response:
                told = remaining_calls(response.headers)
                if told is not None:
                    lane.keep_to(told.calls, told.reset_seconds)
                asked = retry_after_seconds(response.headers)
                if response.status == HTTPStatus.SERVICE_UNAVAILABLE and asked:
                    lane.hold(asked)
                if response.status < HTTPStatus.BAD_REQUEST:
                    content = await (request.read or self._bounded)(response)
                else:
                    content = await self._bounded(response)
                    if not (request.in_parts and has_parts(content)):
                        raise self._sorted(response, content)
                return _Answer(content, status=response.status, retry_after_seconds=asked)
        except TimeoutError as error:
            raise _Failed("did not answer in time") from error
        except aiohttp.ClientSSLError as error:
            msg = f"cannot be trusted ({error}); name its CA with {CA_VARIABLES[0]}"
            raise _Failed(msg) from error
        except ValueError as error:  # aiohttp's InvalidURL is one, so is a broken header
            msg = f"an address that it handed out cannot be used: {error}"
            raise RequestRefused(msg, status=HTTPStatus.OK) from error
        except aiohttp.ClientError as error:
            raise _Failed(f"cannot be reached ({_cause(error)})") from error

    def _options(self, request: _Request) -> dict[str, Any]:
        headers = dict(request.headers)
        options: dict[str, Any] = {"proxy": proxy_for(request.url), "headers": headers}
        options["data"] = request.body
        if request.url.startswith(f"{self.base_url}/"):  # others' addresses carry a signature
            headers["Authorization"] = self._authorization.reveal()
        if request.method == "POST":
            headers["Content-Type"] = "application/json"
            return options
        if request.body is not None:
            options["data"] = io.BytesIO(request.body)  # goes piece by piece
        options["timeout"] = aiohttp.ClientTimeout(
            total=self._stall_seconds * (1 + request.size / BYTES_PER_STALL),
            sock_connect=CONNECT_SECONDS,
            sock_read=self._stall_seconds,
        )
        return options

    def _sorted(self, response: aiohttp.ClientResponse, content: bytes) -> Exception:
        text = error_text_of(content, response.status)
        if response.status in _RETRIED:
            return _Failed(
                f"answered {response.status}: {text}",
                status=response.status,
                retry_after_seconds=retry_after_seconds(response.headers),
            )
        if response.status == HTTPStatus.UNAUTHORIZED and response.url.path.endswith("/graphql"):
            msg = f"{self.base_url} refused the API key: {text}. Check WANDB_API_KEY."
            return AgentUnfit(msg)
        return RequestRefused(text, status=response.status)

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_chunked(1 << 16):
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                msg = f"{self.base_url} sent an answer larger than {MAX_ANSWER_BYTES >> 20} MiB"
                raise Unavailable(msg)
            chunks.append(chunk)
        return b"".join(chunks)


def artifact_file_url(base_url: str, *parts: str) -> str:
    """`/artifactsV2/…` of one file, parts quoted."""
    return "/".join([base_url, "artifactsV2", *(quote(part, safe="") for part in parts)])


def _cause(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
