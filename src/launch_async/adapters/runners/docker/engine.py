"""One Docker engine: the calls that the runner needs, errors told apart by who must act."""

import json
import shutil
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
from aiodocker.exceptions import DockerError

from launch_async.kit.tail import ByteTail
from launch_async.kit.tar import Ownership, tar_pieces
from launch_async.ports.runner import CODE_DIRECTORY
from launch_async.wire.docker import DockerConnection

_CALL_SECONDS = 60.0
_COPY_SECONDS = 600.0
_LISTED = ("Id", "Names", "State", "Labels", "Image", "ImageID")
_PIECE_BYTES = 64 * 1024
_HEADER_BYTES = 8
"""Each piece of a container's log: stream number, three zeros, length in four bytes."""


class Engine(DockerConnection):
    """Methods let `aiodocker.exceptions.DockerError` with a 4xx status through; an engine that is
    away, stuck or sick is `Unavailable`.
    """

    _root: Path | None = None

    async def ping(self) -> None:
        """Whether the engine answers."""
        with self.answering():
            await self.client().version()

    async def put_code(self, container: str, code: Path) -> None:
        """Copy a folder into a container that was created, where any of its users may write."""
        params = {"path": "/", "noOverwriteDirNonDir": "1"}
        ownership = Ownership(writable=True)
        async with aclosing(tar_pieces(code, under=CODE_DIRECTORY, ownership=ownership)) as pieces:
            path = f"containers/{container}/archive"
            with self.answering(), anyio.fail_after(_COPY_SECONDS):
                async with self.request("PUT", path, params=params, body=pieces) as answer:
                    if answer.status != HTTPStatus.OK:
                        raise DockerError(answer.status, await answer.text())

    async def free_bytes(self) -> int | None:
        """What is free on the disk of a local engine's images; None: nobody here can know."""
        if not self.host.startswith("unix://"):
            return None
        if self._root is None:
            with self.answering():
                info = await self.client().system.info()
            self._root = Path(str(info["DockerRootDir"]))
        try:
            return (await anyio.to_thread.run_sync(shutil.disk_usage, self._root)).free
        except OSError:  # the engine runs in a container or a machine of its own
            return None

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

    def _get(
        self, path: str, params: dict[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self.request("GET", path, params=params)


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
