"""Build contexts on a volume that the agent and the pods of builds share.

```
FOLDER/<job's name>/context.tar.gz      written whole or not at all; a pod sees its own folder alone
```
A tar, as only that says who owns the files in the image, whoever the agent runs as.
"""

import gzip
import os
import shutil
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from launch_async.adapters.builders.cluster.contexts import ContextMount
from launch_async.adapters.builders.cluster.executors import CONTEXT, CONTEXT_FILE, CONTEXT_FOLDER
from launch_async.adapters.builders.tar import context_tar
from launch_async.domain.errors import Unavailable
from launch_async.kit.clock import unix_now

_LEVEL = 1
"""Of compression: volumes of clusters are networks, but the build waits."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class VolumeContexts:
    """Implements `Contexts`. `folder`: where the agent sees the volume of `claim`, or what is at
    `sub_path` of it.
    """

    def __init__(self, folder: Path, *, claim: str, sub_path: str = "") -> None:
        self._folder = folder
        self._claim = claim
        self._sub_path = sub_path.strip("/")

    def address(self, name: str) -> str:
        """The same for all: each pod has its own there."""
        del name
        return f"tar://{CONTEXT}"

    def mount(self, name: str) -> ContextMount:
        """The context's own folder, to be read only."""
        within = "/".join(filter(None, (self._sub_path, name)))
        at = {"mountPath": CONTEXT_FOLDER, "subPath": within, "readOnly": True}
        return ContextMount(
            volume={"name": "context", "persistentVolumeClaim": {"claimName": self._claim}},
            mount={"name": "context", **at},
        )

    async def check(self) -> None:
        """Whether the folder is there and can be written to."""
        if not await anyio.to_thread.run_sync(_is_writable, self._folder):
            raise Unavailable(
                f"{self._folder} is no folder that the agent can write to: mount the claim of"
                " builder.cluster.context-claim there, or correct builder.cluster.context-folder."
            )

    async def write(self, name: str, context: Path) -> None:
        """Raises Unavailable when there is no room, or the volume is gone."""
        folder = self._folder / name
        part = folder / f"{CONTEXT_FILE}.part"
        try:
            file = await anyio.to_thread.run_sync(_begin, folder, part)
            try:
                async with context_tar(context) as pieces:
                    async for piece in pieces:
                        await anyio.to_thread.run_sync(file.write, piece)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(file.close)
            await anyio.to_thread.run_sync(os.replace, part, folder / CONTEXT_FILE)
        except OSError as error:
            msg = f"The build context cannot be written to {folder}: {error.strerror}."
            raise Unavailable(f"{msg} Free some room there, or see to its volume.") from error

    async def remove(self, name: str) -> None:
        """Whether or not it is there."""
        gone = partial(shutil.rmtree, self._folder / name, ignore_errors=True)
        await anyio.to_thread.run_sync(gone)

    async def sweep(self, prefix: str, *, older_than_seconds: float) -> None:
        """Remove old folders that are so named."""
        oldest = unix_now() - older_than_seconds
        count = await anyio.to_thread.run_sync(_sweep, self._folder, f"{prefix}*", oldest)
        if count:
            log.info("build contexts of earlier lives are removed", count=count)


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _begin(folder: Path, part: Path) -> gzip.GzipFile:
    # Pods may run as somebody else.
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    part.touch()
    part.chmod(0o644)
    return gzip.GzipFile(part, "wb", compresslevel=_LEVEL)


def _sweep(folder: Path, pattern: str, oldest: float) -> int:
    count = 0
    for path in folder.glob(pattern):
        try:
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path)
                count += 1
        except OSError as error:
            log.warning("a build context stays", path=str(path), why=error.strerror)
    return count
