"""The way to one API server, kept good: tokens and certificates are replaced before they end, and
when the server refuses them.

```
way() ----> held and good? ---------------------------------------> Way (address, TLS, headers)
               | due                                                 ^
               v                                                     |
            kubeconfig or service account read again --> program run-+   one at a time; the others
                                                                         go on with what still holds
another() --> refused (401): the same, at most every ten seconds
```
"""

import math
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async.domain.errors import AgentUnfit, ConfigError, Unavailable
from launch_async.domain.secret import Secret
from launch_async.kit.renewed import FRESH_SHARE, RETRY_SECONDS
from launch_async.wire.kubernetes import plug_in
from launch_async.wire.kubernetes.kubeconfig import read_kubeconfig
from launch_async.wire.kubernetes.places import (
    IN_CLUSTER,
    SERVICE_ACCOUNT,
    Place,
    in_cluster,
    kubeconfigs,
)
from launch_async.wire.kubernetes.tls import Tls, context_of
from launch_async.wire.network import ca_file_of, proxy_for

MIN_INTERVAL_SECONDS = 10.0
"""Between two reads, whatever ends or is refused meanwhile: each may run a program."""
READ_SECONDS = 30.0
"""For files, which may be on a disk that hangs."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


T = TypeVar("T")


class Way(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a request needs."""

    server: str
    proxy: str | None
    ssl: ssl.SSLContext | bool
    server_name: str | None
    headers: Mapping[str, Secret[str]]


class Access:
    """One context of a kubeconfig, or the cluster that the agent runs in.

    `server` replaces the address that the configuration names.
    """

    def __init__(
        self,
        *,
        config_file: Path | None,
        context: str | None,
        environ: Mapping[str, str],
        server: str | None = None,
        service_account: Path = SERVICE_ACCOUNT,
        plug_in_seconds: float = plug_in.TIMEOUT_SECONDS,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._config_file = config_file
        self._files: tuple[Path, ...] | None = None
        self._context = context
        self._environ = environ
        self._server = server
        self._service_account = service_account
        self._plug_in_seconds = plug_in_seconds
        self._now = now
        self._place: Place | None = None
        self._tls: tuple[Tls, ssl.SSLContext] | None = None
        self._lock = anyio.Lock()
        self._held: Way | None = None
        self._renew_at = -math.inf
        self._ends_at = math.inf
        self._read_at = -math.inf
        self._forced_at = -math.inf
        self._failure: Exception | None = None
        self._said = False

    async def open(self) -> Place:
        """Read the configuration, once; nobody is asked for a token yet.

        Raises:
            ConfigError: it is wrong, or its login program is missing.
        """
        async with self._lock:
            return self._place or await self._look()

    async def way(self) -> Way:
        """The way as it is good now.

        Raises:
            ConfigError: the configuration is wrong, and nothing that was read before still holds.
            Unavailable: nobody gives a token, likewise.
        """
        held, now = self._held, self._now()
        if held is not None and now < self._renew_at:
            return held
        if held is not None and now < self._ends_at and self._lock.locked():
            return held  # somebody sees to the next one
        async with self._lock:
            now = self._now()
            if self._held is not None and now < self._renew_at:
                return self._held
            try:
                return await self._renew()
            except (ConfigError, Unavailable) as error:
                if self._held is None or self._now() >= self._ends_at:
                    raise
                log.warning(
                    "kubernetes login not renewed", server=self._held.server, why=str(error)
                )
                self._renew_at = min(self._now() + RETRY_SECONDS, self._ends_at)
                return self._held

    async def another(self, refused: Way) -> Way | None:
        """The way after the server refused this one; None: there is no other now.

        Raises:
            ConfigError, Unavailable: as `way`.
        """
        async with self._lock:
            if self._held is not None and self._held is not refused:
                return self._held
            if self._now() < self._forced_at + MIN_INTERVAL_SECONDS:
                return None
            self._forced_at = self._now()
            way = await self._renew()
            if _same(way, refused):
                self._held = refused
                return None
            return way

    async def _renew(self) -> Way:
        """Read and log in; who comes just after a failure gets the same one."""
        now = self._now()
        if self._failure is not None and now < self._read_at + MIN_INTERVAL_SECONDS:
            raise self._failure.with_traceback(None)
        try:
            way, lifetime_seconds = await self._read()
        except (ConfigError, Unavailable) as error:
            self._failure = error
            raise
        finally:
            self._read_at = self._now()
        self._failure = None
        self._said = False
        now = self._read_at
        lasting = max(lifetime_seconds, MIN_INTERVAL_SECONDS)
        self._renew_at = now + lasting * FRESH_SHARE
        self._ends_at = now + lasting if self._expires else math.inf
        self._held = way
        return way

    @property
    def _expires(self) -> bool:
        """Whether a login ends by itself: what files say holds until it is refused."""
        return self._place is not None and self._place.plug_in is not None

    async def _read(self) -> tuple[Way, float]:
        place = await self._look()
        tls, lifetime_seconds = place.tls, place.lifetime_seconds
        headers = {name: Secret(value) for name, value in place.headers.items()}
        if place.authorization is not None:
            headers["Authorization"] = place.authorization
        if place.plug_in is not None:
            issued = await plug_in.ask(
                place.plug_in, self._environ, timeout_seconds=self._plug_in_seconds
            )
            if issued.token is not None:
                headers["Authorization"] = Secret(f"Bearer {issued.token.reveal()}")
            if issued.certificate is not None:
                tls = msgspec.structs.replace(tls, certificate=issued.certificate, key=issued.key)
            if issued.lifetime_seconds is not None:
                lifetime_seconds = issued.lifetime_seconds
        server = self._server or place.server
        encrypted = server.startswith("https:")
        way = Way(
            server=server,
            proxy=_proxy(place, server),
            ssl=await self._tls_context(tls) if encrypted else True,
            server_name=tls.server_name if encrypted else None,
            headers=headers,
        )
        return way, lifetime_seconds

    async def _look(self) -> Place:
        place = await _in_thread(self._find)
        self._context = place.context  # or another current-context would be another cluster
        self._place = place
        return place

    def _find(self) -> Place:
        if self._files is None:
            self._files = kubeconfigs(self._config_file, self._environ)
        if not self._files:
            if self._context not in {None, IN_CLUSTER}:
                msg = f"there is no kubeconfig that could have the context {self._context}"
                raise ConfigError(msg)
            return in_cluster(self._environ, self._service_account)
        place = read_kubeconfig(self._files, self._context)
        if place.plug_in is not None:
            plug_in.require(place.plug_in, self._environ)
        return place

    async def _tls_context(self, tls: Tls) -> ssl.SSLContext:
        """The same context for the same certificates: connections are kept by it."""
        if self._tls is None or self._tls[0] != tls:
            make = partial(context_of, tls, ca_file=ca_file_of(self._environ))
            self._tls = tls, await _in_thread(make)
        return self._tls[1]


def _proxy(place: Place, server: str) -> str | None:
    try:
        return place.proxy or proxy_for(server)
    except AgentUnfit as error:
        raise ConfigError(str(error)) from error


def _same(one: Way, other: Way) -> bool:
    return (one.server, one.ssl, one.headers) == (other.server, other.ssl, other.headers)


async def _in_thread(work: Callable[[], T]) -> T:
    with anyio.move_on_after(READ_SECONDS):
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    msg = f"the kubeconfig or a file that it names was not read in {READ_SECONDS:.0f} s"
    raise Unavailable(msg)
