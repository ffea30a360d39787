"""The file that keeps all that a build prints."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from launch_async.adapters.builders.faults import build_failed
from launch_async.domain.errors import ItemError

MAX_BYTES = 256 * 1024 * 1024
"""A build that prints without end must not fill the disk for all."""
_CUT = b"\n(the log is cut here: the build printed more than 256 MiB)\n"


class Output:
    """Takes bytes; what is beyond `MAX_BYTES` is dropped and said to be."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._left = MAX_BYTES

    async def write(self, piece: bytes) -> None:
        """Append to the file.

        Raises:
            ItemError: there is no room for it.
        """
        if not piece or self._left <= 0:
            return
        kept = piece if len(piece) <= self._left else piece[: self._left] + _CUT
        self._left -= len(piece)
        try:
            await anyio.to_thread.run_sync(_write, self._descriptor, kept)
        except OSError as error:
            raise _unwritable(self._path, error) from error


@asynccontextmanager
async def open_output(path: Path) -> AsyncGenerator[Output, None]:
    """The file, made new, for its owner only."""
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
    try:
        descriptor = await anyio.to_thread.run_sync(partial(os.open, path, flags, 0o600))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield Output(path, descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


def _unwritable(path: Path, error: OSError) -> ItemError:
    return build_failed(
        f"The build's log cannot be written to {path.parent}: {error.strerror}."
        " Free some room on the agent's disk, or name another state directory."
    )
