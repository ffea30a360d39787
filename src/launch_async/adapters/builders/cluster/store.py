"""Build contexts in an object store, from which kaniko fetches them by itself.

```
URL/<beginning of the names>/<job's name>.tar.gz
```
Who reaches the store is the cloud's own affair: the agent by what its environment has, the pods by
their service account, or by a Secret that they mount.
"""

import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from launch_async.adapters.builders.tar import context_tar
from launch_async.domain.errors import ConfigError, Unavailable
from launch_async.kit.clock import unix_now

PART_BYTES = 5 * 1024 * 1024
"""The smallest that S3 takes."""
PARTS_AT_ONCE = 2
_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 1
_REMOVE_SECONDS = 30.0
_FAULTS = (BaseError, OSError)
"""What is not found or not permitted is told by errors of Python's own."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def stored_contexts(url: str) -> "StoredContexts":
    """In the store of an `s3`, `gs` or Azure's `https` URL.

    Raises:
        ConfigError: it cannot be one.
    """
    try:
        return StoredContexts(from_url(url), url)
    except (BaseError, ValueError) as error:
        raise ConfigError(f"builder.build-context-store: {_said(error)}") from error


class StoredContexts:
    """Implements `Contexts`. `url` is how kaniko names the folder that `store` is."""

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store = store
        self._url = url.rstrip("/")

    def address(self, name: str) -> str:
        """A URL of the store."""
        return f"{self._url}/{_key(name)}"

    def mount(self, name: str) -> None:
        """None is needed."""
        del name

    async def check(self) -> None:
        """Whether the store answers; whether it lets us write, only a write tells."""
        try:
            await obstore.head_async(self._store, _key("launch-async-check"))
        except (FileNotFoundError, PermissionError):
            pass
        except _FAULTS as error:
            raise Unavailable(self._fault("does not answer", error)) from error

    async def write(self, name: str, context: Path) -> None:
        """Raises Unavailable when the store does not take it."""
        try:
            async with context_tar(context) as pieces:
                await obstore.put_async(
                    self._store,
                    _key(name),
                    _compressed(pieces),
                    chunk_size=PART_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )
        except _FAULTS as error:
            raise Unavailable(self._fault("does not take a context", error)) from error

    async def remove(self, name: str) -> None:
        """What stays goes with the next start."""
        try:
            with anyio.fail_after(_REMOVE_SECONDS):
                await obstore.delete_async(self._store, _key(name))
        except FileNotFoundError:
            pass
        except _FAULTS as error:
            log.warning("a build context stays", name=self.address(name), why=_said(error))

    async def sweep(self, prefix: str, *, older_than_seconds: float) -> None:
        """Remove old objects that are so named."""
        oldest = datetime.fromtimestamp(unix_now() - older_than_seconds, UTC)
        folder = _folder(prefix)
        try:
            async for found in obstore.list(self._store, folder):
                old = [one["path"] for one in found if one["last_modified"] < oldest]
                if old:
                    await obstore.delete_async(self._store, old)
                    log.info("build contexts of earlier lives are removed", count=len(old))
        except _FAULTS as error:
            log.warning("old build contexts stay", url=f"{self._url}/{folder}", why=_said(error))

    def _fault(self, what: str, error: Exception) -> str:
        remedy = "Correct builder.build-context-store, or let the agent's cloud login write there."
        return f"The store {self._url} {what} ({_said(error)}). {remedy}"


async def _compressed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    async for piece in pieces:
        if packed := await anyio.to_thread.run_sync(packer.compress, piece):
            yield packed
    yield packer.flush()


def _key(name: str) -> str:
    """Stores list folders, not beginnings of names."""
    return f"{_folder(name)}/{name}.tar.gz"


def _folder(name: str) -> str:
    """Of all that one agent makes, whose names differ in their last word."""
    return name.rpartition("-")[0]


def _said(error: Exception) -> str:
    """Its first line; more is a trace, or an answer with its request's id."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
