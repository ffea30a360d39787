"""One API server: calls with an end, repeated where that does no harm, at a rate of its own.

```
get create patch delete --> token, place --> request --+--> 2xx: the body
                               ^                       +--> 401: another login, once
                               |                       +--> 429, 5xx, silence: again, after a while
                               +---------- pause ------+--> other 4xx: KubeRefused
lines (watches), pieces (logs): one request each, streamed; who reads them comes again
```
"""

import random
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec
import structlog

from launch_async.domain.errors import Unavailable
from launch_async.kit.breaker import Breaker
from launch_async.kit.ratelimit import TokenBucket
from launch_async.ports.backends import BackendView
from launch_async.wire.bulkhead import Bulkhead
from launch_async.wire.kubernetes.access import Access
from launch_async.wire.kubernetes.errors import KubeRefused
from launch_async.wire.kubernetes.requests import (
    CALL_SECONDS,
    Answer,
    Failed,
    Request,
    Requests,
    Stream,
)

FIELD_MANAGER = "launch-async"

_PLACES = 64
_MAX_WAIT_SECONDS = 60.0
_FAILURES = 5
_OPEN_SECONDS = 5.0
_TRIES = 4
_FIRST_PAUSE_SECONDS = 0.25
_MAX_PAUSE_SECONDS = 8.0
_MAX_ASKED_SECONDS = 30.0
"""The longest Retry-After that a call sits out itself; its caller hears of a longer one."""
_PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
}

Patch = Literal["merge", "strategic", "apply", "json"]
Propagation = Literal["Foreground", "Background", "Orphan"]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class KubeCluster:
    """One API server, reached as a context of a kubeconfig or a pod's service account says.

    Every call raises `KubeRefused` for a 4xx but 401 and 429, and `Unavailable` for silence, 5xx,
    429, a 401 that another login does not mend, and a configuration that cannot be read.
    """

    def __init__(
        self,
        *,
        config_file: Path | None = None,
        context: str | None = None,
        environ: Mapping[str, str],
        calls_per_second: float = 50.0,
        burst: int = 100,
        name: str = "kubernetes",
        server: str | None = None,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        """`server` replaces the address that the configuration names."""
        self.name = name
        self.access = Access(
            config_file=config_file, context=context, environ=environ, server=server
        )
        self.bulkhead = Bulkhead(
            name,
            places=_PLACES,
            bucket=TokenBucket(
                per_second=calls_per_second, burst=burst, max_wait_seconds=_MAX_WAIT_SECONDS
            ),
            breaker=Breaker(failures=_FAILURES, open_seconds=_OPEN_SECONDS),
        )
        self._requests = Requests(self.access, self.bulkhead, call_seconds=call_seconds)
        self._namespace: str | None = None

    @property
    def namespace(self) -> str:
        """Where things go that name no namespace: the context's, the service account's, else
        `default`. Known once it is open.
        """
        if self._namespace is None:
            raise RuntimeError(f"{self.name} is not open")
        return self._namespace

    async def open(self) -> None:
        """Read the configuration, once. A call does without, but then its faults are outages.

        Raises:
            ConfigError: there is none, it is wrong, or its login program is missing.
        """
        if self._namespace is None:
            self._namespace = (await self.access.open()).namespace

    async def close(self) -> None:
        """Give back all connections; the next use opens new ones."""
        await self._requests.close()

    async def check(self) -> None:
        """Whether the API server answers and takes our login.

        Raises:
            Unavailable: it does not; the text says why and the remedy.
        """
        try:
            await self._answered(Request(method="GET", path="/api", verb="get"), tries=1)
        except KubeRefused as error:
            msg = f"{self.name} has no use for our login ({error.status}): {error.message}"
            raise Unavailable(msg) from error

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """An object or a page of a list."""
        request = Request(method="GET", path=path, verb="get", params=params or {})
        return (await self._answered(request)).body

    async def create(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        dry_run: bool = False,
        strict: bool = False,
        warnings: list[str] | None = None,
    ) -> bytes:
        """Post an object to a collection, or to what a subresource does.

        `strict`: fields that it does not know are refused; a server before 1.25 takes no notice.

        One that has a name is sent again when nobody knows whether it arrived: `exists` may then
        mean that it did. What the API server warns of is appended to `warnings`: deprecated
        versions, pods that the namespace will not admit.
        """
        named = bool((body.get("metadata") or {}).get("name"))
        answer = await self._answered(
            Request(
                method="POST",
                path=path,
                verb="create",
                params=_changing(dry_run=dry_run)
                | ({"fieldValidation": "Strict"} if strict else {}),
                body=msgspec.json.encode(body),
                repeatable=named or dry_run,
            )
        )
        if warnings is not None:
            warnings.extend(answer.warnings)
        return answer.body

    async def patch(
        self,
        path: str,
        body: Mapping[str, Any] | list[Any],
        *,
        kind: Patch = "merge",
        dry_run: bool = False,
    ) -> bytes:
        """Change an object; `apply` makes it too, and takes over fields that others have set."""
        params = _changing(dry_run=dry_run)
        if kind == "apply":
            params["force"] = "true"
        answer = await self._answered(
            Request(
                method="PATCH",
                path=path,
                verb="patch",
                params=params,
                body=msgspec.json.encode(body),
                content_type=_PATCHES[kind],
                repeatable=kind != "json",
            )
        )
        return answer.body

    async def delete(
        self,
        path: str,
        *,
        propagation: Propagation = "Foreground",
        grace_seconds: int | None = None,
        uid: str | None = None,
    ) -> bytes:
        """Delete an object, with `uid` only the one that has it (`conflict` else)."""
        options: dict[str, Any] = {"propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        body = msgspec.json.encode(options)
        request = Request(method="DELETE", path=path, verb="delete", body=body)
        return (await self._answered(request)).body

    def lines(
        self, path: str, params: Mapping[str, str], *, idle_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        """The whole lines of a watch, of any length; first an empty one: it is open.

        Raises:
            Silence: nothing came for `idle_seconds`.
            BrokenOff: the connection ended before the watch did.
        """
        request = Request(method="GET", path=path, verb="watch", params=params)
        return self._requests.lines(Stream(request, idle_seconds=idle_seconds))

    def pieces(
        self, path: str, params: Mapping[str, str], *, idle_seconds: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A log, in pieces of at most 64 KiB, cut anywhere.

        Without `idle_seconds` only a connection that is dead ends the wait for more.

        Raises:
            Silence, BrokenOff: as `lines`.
        """
        request = Request(method="GET", path=path, verb="logs", params=params)
        return self._requests.pieces(Stream(request, idle_seconds=idle_seconds))

    def view(self) -> BackendView:
        """Its calls, for metrics."""
        return self.bulkhead.view()

    async def _answered(self, request: Request, *, tries: int = _TRIES) -> Answer:
        pause = _FIRST_PAUSE_SECONDS
        attempt = 1
        while True:
            try:
                return await self._requests.once(request)
            except Failed as failure:
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311
                if failure.retry_after_seconds is not None:
                    wait += failure.retry_after_seconds
                again = request.repeatable or failure.certain
                if attempt == tries or not again or wait > _MAX_ASKED_SECONDS:
                    raise Unavailable(
                        failure.text, retry_after_seconds=failure.retry_after_seconds
                    ) from failure
                log.debug("request repeated", cluster=self.name, why=failure.text, attempt=attempt)
            await anyio.sleep(wait)
            self.bulkhead.repeated()
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)
            attempt += 1


def _changing(*, dry_run: bool) -> dict[str, str]:
    params = {"fieldManager": FIELD_MANAGER}
    return params | {"dryRun": "All"} if dry_run else params
