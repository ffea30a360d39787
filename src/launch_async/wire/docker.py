"""The way to a Docker engine: where it listens, its certificates, and whose fault an error is."""

import os
import ssl
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import aiodocker
import aiohttp
import anyio
from aiodocker.exceptions import DockerError

from launch_async.domain.errors import Unavailable
from launch_async.kit.breaker import Breaker
from launch_async.wire.bulkhead import Bulkhead

DEFAULT_HOST = "unix:///var/run/docker.sock"
_VERB = "call"
_NO_CONNECTION = 900  # aiodocker's own status for "cannot connect"
_CALL_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_FAILURES = 5
_OPEN_SECONDS = 2.0
_PLACES = 1000
"""No limit of calls here: the runner bounds what it starts, and watches need no call each."""


class DockerConnection:
    """A client that opens at its first use, for any number of waiting calls.

    `host` is as DOCKER_HOST, which is used when it is None, else the usual socket.
    """

    def __init__(self, host: str | None = None, *, name: str = "docker") -> None:
        self.host = host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        self.bulkhead = Bulkhead(
            name,
            places=_PLACES,
            breaker=Breaker(failures=_FAILURES, open_seconds=_OPEN_SECONDS),
        )
        self._client: aiodocker.Docker | None = None
        self._connector: aiohttp.BaseConnector | None = None

    def client(self) -> aiodocker.Docker:
        """The aiodocker client; within the loop only. Calls of it belong inside `answering()`.

        Raises:
            Unavailable: DOCKER_HOST or its certificates cannot be used.
        """
        if self._client is None:
            # aiodocker's own pool has 100 places, and 101 waiting calls would block every other.
            try:
                self._connector, url = _connector(self.host)
            except OSError as error:
                raise self._no_engine() from error
            timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS, sock_connect=_CONNECT_SECONDS)
            self._client = aiodocker.Docker(url, connector=self._connector, timeout=timeout)
        return self._client

    async def close(self) -> None:
        """Give back all connections; the next use opens new ones."""
        client, connector = self._client, self._connector
        self._client = self._connector = None
        if client is not None:
            await client.close()
        if connector is not None:
            await connector.close()

    @contextmanager
    def reaching(self) -> Generator[None, None, None]:
        """Turn what an absent or stuck engine raises into `Unavailable` with a remedy.

        Only silence is a sign of sickness: the engine answers 5xx for faults of one container too.
        """
        self.bulkhead.admit()
        try:
            yield
        except DockerError as error:
            if error.status == _NO_CONNECTION:
                raise self._away(error) from error
            self.bulkhead.answered(_VERB, error.status)
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(error) from error
        self.bulkhead.answered(_VERB, 200)

    @contextmanager
    def answering(self) -> Generator[None, None, None]:
        """As `reaching`, and an engine that fails by itself (5xx) is `Unavailable` as well."""
        with self.reaching():
            try:
                yield
            except DockerError as error:
                if 500 <= error.status < _NO_CONNECTION:
                    raise Unavailable(f"The Docker engine failed: {error.message}") from error
                raise

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | Sequence[tuple[str, str]],
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A call of the engine's API as it is, without an end of its own.

        Leaving the block before the answer's end closes the connection, which tells the engine to
        stop: aiodocker's own streams go on.
        """
        client = self.client()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        return client.session.request(
            method,
            f"{client.docker_host}/{path}",
            params=params,
            headers=headers,
            data=body,
            timeout=timeout,
        )

    def _away(self, error: Exception) -> Unavailable:
        caller = anyio.get_current_task().id
        self.bulkhead.failed(_VERB, None, caller=caller, reason=str(error) or type(error).__name__)
        return self._no_engine()

    def _no_engine(self) -> Unavailable:
        return Unavailable(
            f"No Docker engine answers at {self.host}: start Docker, or set DOCKER_HOST."
        )


def _connector(host: str) -> tuple[aiohttp.BaseConnector, str]:
    scheme, _, rest = host.partition("://")
    match scheme:
        case "unix":
            return aiohttp.UnixConnector(rest, limit=0), "http://docker"
        case "tcp" | "http" | "https":
            secure = _client_certificate() if scheme != "http" else None
            encrypted = scheme == "https" or secure is not None
            url = f"{'https' if encrypted else 'http'}://{rest}"
            return aiohttp.TCPConnector(limit=0, ssl=secure or True), url
        case _:
            raise Unavailable(
                f"DOCKER_HOST={host} is of a kind that is not supported:"
                " use unix://, tcp:// or https://."
            )


def _client_certificate() -> ssl.SSLContext | None:
    """As Docker's own command line reads DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."""
    folder = os.environ.get("DOCKER_CERT_PATH")
    if not folder or not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    files = Path(folder)
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    context.load_cert_chain(str(files / "cert.pem"), str(files / "key.pem"))
    return context
