"""A running agent, asked and told through its admin endpoint."""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from launch_async.domain.errors import LaunchError
from launch_async.domain.secret import Secret
from launch_async.ports.control import Explanation
from launch_async.ports.status import AgentView, QueueView

ANSWER_SECONDS = 35.0
CONNECT_SECONDS = 5.0
NOT_KNOWN = (
    "this needs the agent's token: give the file of its `agent.admin_token_file` with"
    " --admin-token-file, or the token in LAUNCH_ASYNC_ADMIN_TOKEN"
)

T = TypeVar("T")


class _Refusal(msgspec.Struct, frozen=True):
    error: str


class NotOpen(LaunchError):
    """The agent has no such item or queue."""


class AgentClient:
    """Errors of every verb: `LaunchError` with a text for people."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: Secret[str] | None) -> None:
        self._session = session
        self._url = url
        self._token = token

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, token: Secret[str] | None
    ) -> AsyncGenerator["AgentClient", None]:
        """A client for as long as the block runs; nothing is asked yet."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield cls(session, url, token)

    async def status(self, *, items: int) -> AgentView:
        """The agent, with this many of its items."""
        return _decoded(await self._ask("GET", f"/status?items={items}"), AgentView)

    async def queues(self) -> tuple[QueueView, ...]:
        """The queues that it polls."""
        return _decoded(await self._ask("GET", "/queues"), tuple[QueueView, ...])

    async def explain_item(self, item_id: str) -> Explanation:
        """Why an item is where it is. Raises `NotOpen`."""
        return _decoded(await self._ask("GET", f"/items/{_quoted(item_id)}/explain"), Explanation)

    async def explain_queue(self, name: str) -> Explanation:
        """Why a queue is as it is. Raises `NotOpen`."""
        return _decoded(await self._ask("GET", f"/queues/{_quoted(name)}/explain"), Explanation)

    async def check(self, probe: str) -> tuple[bool, str]:
        """Whether `livez` or `readyz` is content, and its checks in words."""
        async with self._requested("GET", f"/{probe}?verbose") as response:
            text = await response.text(errors="replace")
            content = response.status == 200 and text.startswith("ok\n")
            if not content and response.status != 503:
                _raise(self._url, response.status, text.encode())
            return content, text

    async def drain(self, *, timeout_seconds: float | None = None) -> None:
        """Let it take nothing new, and end with its items, or after the timeout."""
        body = None if timeout_seconds is None else {"timeout_seconds": timeout_seconds}
        await self._ask("POST", "/drain", body=body)

    async def pause(self, queue: str) -> None:
        """Let it take nothing from this queue. Raises `NotOpen`."""
        await self._ask("POST", f"/queues/{_quoted(queue)}/pause")

    async def resume(self, queue: str) -> None:
        """Let it take from this queue again. Raises `NotOpen`."""
        await self._ask("POST", f"/queues/{_quoted(queue)}/resume")

    async def cancel(self, item_id: str) -> None:
        """End an item. Raises `NotOpen`."""
        await self._ask("POST", f"/items/{_quoted(item_id)}/cancel")

    async def reload(self) -> tuple[str, ...]:
        """Let it read its configuration; what changed."""
        answer = _decoded(await self._ask("POST", "/reload"), dict[str, tuple[str, ...]])
        return answer["changes"]

    async def set_log_level(self, level: str) -> None:
        """Let it log more or less."""
        await self._ask("POST", "/loglevel", body={"level": level})

    async def log_tail(self, item_id: str, *, lines: int) -> bytes:
        """The last lines of what an item's run printed."""
        return await self._ask("GET", f"/items/{_quoted(item_id)}/logs?lines={lines}")

    async def follow(self, item_id: str) -> AsyncGenerator[bytes, None]:
        """What an item's run prints, to its end."""
        forever = aiohttp.ClientTimeout(connect=CONNECT_SECONDS)
        path = f"/items/{_quoted(item_id)}/logs?follow=1"
        async with self._requested("GET", path, timeout=forever) as response:
            if response.status != 200:
                _raise(self._url, response.status, await response.read())
            async for piece in response.content.iter_any():
                yield piece

    async def _ask(self, method: str, path: str, *, body: Any = None) -> bytes:
        async with self._requested(method, path, json=body) as response:
            answer = await response.read()
            if response.status not in (200, 202):
                _raise(self._url, response.status, answer)
            return answer

    @asynccontextmanager
    async def _requested(
        self, method: str, path: str, **given: Any
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        token = self._token
        headers: Mapping[str, str] = (
            {} if token is None else {"Authorization": f"Bearer {token.reveal()}"}
        )
        try:
            async with self._session.request(
                method, self._url + path, headers=headers, allow_redirects=False, **given
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = _reason(error)
            msg = (
                f"no agent answers at {self._url} ({reason}); is it running, and is that its"
                " `agent.admin`? Give another address with --admin, or its file with -c"
            )
            raise LaunchError(msg) from error


def _reason(error: aiohttp.ClientError | TimeoutError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0
        return os.strerror(number) if number > 0 else str(error.os_error.strerror)
    return str(error) or "no answer in time"


def _quoted(name: str) -> str:
    """One step of a path; what cannot be one is the name of nothing."""
    try:
        if name not in ("", ".", ".."):
            return quote(name, safe="")
    except UnicodeEncodeError:
        pass  # said below
    raise NotOpen(f"nothing at this agent is called {name!r}")


def _decoded(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        msg = f"what answers is no launch-async agent of this version ({error})"
        raise LaunchError(msg) from error


def _raise(url: str, status: int, answer: bytes) -> None:
    if status == 401:
        raise LaunchError(NOT_KNOWN)
    try:
        told = msgspec.json.decode(answer, type=_Refusal).error
    except msgspec.DecodeError:
        told = "" if status == 404 else answer.decode(errors="replace").strip()[:500]
    if told in ("", "Not Found"):
        msg = f"what answers at {url} is no launch-async agent of this version (status {status})"
        raise LaunchError(msg)
    raise (NotOpen if status == 404 else LaunchError)(told)
