"""One Docker engine: the calls that the runner needs, errors told apart by who must act."""

import json
import os
import ssl
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
import anyio
from aiodocker.exceptions import DockerError

from launch_async.domain.errors import Unavailable
from launch_async.kit.breaker import Breaker
from launch_async.kit.tail import ByteTail
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
_LISTED = ("Id", "Names", "State", "Labels", "Image", "ImageID")
_PIECE_BYTES = 64 * 1024
_HEADER_BYTES = 8
"""Each piece of a container's log: stream number, three zeros, length in four bytes."""


class Engine:
    """A client that opens at its first use, for as many waiting calls as there are runs.

    Methods let `aiodocker.exceptions.DockerError` with a 4xx status through; an engine that is
    away, stuck or sick is `Unavailable`.
    """

    def __init__(self, host: str | None = None) -> None:
        self.host = host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        self.bulkhead = Bulkhead(
            "docker",
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

    async def ping(self) -> None:
        """Whether the engine answers."""
        with self.answering():
            await self.client().version()

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """All facts of a container by id or name; None when there is none."""
        try:
            with self.answering():
                found = await self.client().containers.container(container).show()
        except DockerError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def labelled(self, label: str) -> list[dict[str, Any]]:
        """Short facts of all containers, ended ones too, with `label` (`name` or `name=value`)."""
        filters = json.dumps({"label": [label]})
        with self.answering():
            found = await self.client().containers.list(all=True, filters=filters)
        return [{fact: container[fact] for fact in _LISTED} for container in found]

    async def has_image(self, image: str, platform: str | None) -> bool:
        """Whether the image is on the engine already, for that platform if one is named."""
        try:
            with self.answering():
                facts = await self.client().images.inspect(image)
        except DockerError as error:
            if error.status == 404:
                return False
            raise
        have = (facts.get("Os"), facts.get("Architecture"), facts.get("Variant"))
        wanted = platform.split("/") if platform else []
        return all(part == found for part, found in zip(wanted, have, strict=False))

    async def events(self, label: str, kinds: list[str]) -> AsyncGenerator[dict[str, Any], None]:
        """Events of containers with `label` from now on; first an empty one: it is listening."""
        filters = json.dumps({"type": ["container"], "event": kinds, "label": [label]})
        # Plain HTTP: aiodocker's own stream needs a background task and swallows its errors.
        with self.answering():
            async with self._get("events", {"filters": filters}) as response:
                response.raise_for_status()
                yield {}
                async for line in response.content:
                    yield json.loads(line)

    async def log_tail(self, container: str, *, lines: int) -> tuple[str, ...]:
        """The last lines of stdout and stderr; () when the container is gone."""
        tail = ByteTail()
        with self.answering(), anyio.fail_after(_CALL_SECONDS):
            async with aclosing(self._log(container, {"tail": str(lines)})) as pieces:
                with suppress(aiohttp.ClientPayloadError):  # cut short: what came is what there is
                    async for piece in pieces:
                        tail.feed(piece)
        return tail.lines(lines)

    async def logs(self, container: str) -> AsyncGenerator[bytes, None]:
        """All of stdout and stderr that the engine has, followed to the container's end."""
        with self.answering():
            async with aclosing(self._log(container, {"follow": "1"})) as pieces:
                async for piece in pieces:
                    yield piece

    async def _log(self, container: str, params: dict[str, str]) -> AsyncGenerator[bytes, None]:
        both = {"stdout": "1", "stderr": "1", **params}
        async with self._get(f"containers/{container}/logs", both) as response:
            if response.status in {404, 409}:
                return
            response.raise_for_status()
            async with aclosing(_demultiplexed(response.content)) as pieces:
                async for piece in pieces:
                    yield piece

    def _get(self, path: str, params: dict[str, str]) -> Any:
        client = self.client()
        url = f"{client.docker_host}/{path}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        return client.session.get(url, params=params, timeout=timeout)

    def _away(self, error: Exception) -> Unavailable:
        caller = anyio.get_current_task().id
        self.bulkhead.failed(_VERB, None, caller=caller, reason=str(error) or type(error).__name__)
        return self._no_engine()

    def _no_engine(self) -> Unavailable:
        return Unavailable(
            f"No Docker engine answers at {self.host}: start Docker, or set DOCKER_HOST."
        )


async def _demultiplexed(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """The text in a container's log, in pieces of bounded size."""
    while True:
        try:
            header = await content.readexactly(_HEADER_BYTES)
        except EOFError:
            return
        left = int.from_bytes(header[4:])
        while left and (piece := await content.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            yield piece


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
