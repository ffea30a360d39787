"""A build context as a tar that is written while it is read: memory stays small, however big it is.

```
worker thread: files -> tar --pipe--> loop: chunks -> request body
```
"""

import asyncio
import errno
import os
import stat
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import anyio

from launch_async.adapters.builders.faults import build_failed

_CHUNK_BYTES = 256 * 1024


@asynccontextmanager
async def context_tar(folder: Path) -> AsyncGenerator[AsyncIterator[bytes], None]:
    """The folder's tar in chunks; leaving the block early ends its making.

    Entries are sorted and belong to root. Times are the files' own: no engine's layer cache looks
    at them, but `make`, `pip` and Python's own caches in the image do.

    Raises:
        ItemError: a file of the context cannot be read.
    """
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    writing = _Writing(folder, write_end)
    thread = loop.run_in_executor(None, writing.run)
    try:
        yield _chunks(reader, writing)
    except Exception:
        if writing.fault is not None:
            msg = f"The build context cannot be read: {writing.fault.strerror}."
            raise build_failed(msg) from writing.fault
        raise
    finally:
        transport.close()  # the thread gets EPIPE
        with anyio.CancelScope(shield=True):
            await thread


async def _chunks(reader: asyncio.StreamReader, writing: "_Writing") -> AsyncIterator[bytes]:
    while chunk := await reader.read(_CHUNK_BYTES):
        yield chunk
    if writing.fault is not None:  # or what came would pass for the whole
        raise writing.fault


class _Writing:
    def __init__(self, folder: Path, write_end: int) -> None:
        self._folder = folder
        self._write_end = write_end
        self.fault: OSError | None = None

    def run(self) -> None:
        with (
            suppress(BrokenPipeError),  # nobody wants it any more
            os.fdopen(self._write_end, "wb", buffering=_CHUNK_BYTES) as pipe,
        ):
            try:
                _write_tar(self._folder, pipe)
            except BrokenPipeError:
                raise
            except OSError as error:
                self.fault = error  # before the pipe's end is seen


def _write_tar(folder: Path, pipe: BinaryIO) -> None:
    # Not by tarfile's own stream, which copies what it holds back with each piece.
    for name, path, facts in _entries(folder, ""):
        info = tarfile.TarInfo(name)
        info.mode, info.mtime = stat.S_IMODE(facts.st_mode), int(facts.st_mtime)
        if stat.S_ISREG(facts.st_mode):
            info.size = facts.st_size
            pipe.write(_header(info))
            _copy(path, info.size, pipe)
        elif stat.S_ISDIR(facts.st_mode):
            info.type = tarfile.DIRTYPE
            pipe.write(_header(info))
        elif stat.S_ISLNK(facts.st_mode):  # sockets and the like are left out
            info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            pipe.write(_header(info))
    pipe.write(bytes(2 * tarfile.BLOCKSIZE))


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _copy(path: Path, size: int, pipe: BinaryIO) -> None:
    left = size
    with path.open("rb", buffering=0) as file:
        while left:
            piece = file.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise OSError(errno.EIO, "a file became shorter while it was read", str(path))
            pipe.write(piece)
            left -= len(piece)
    pipe.write(bytes(-size % tarfile.BLOCKSIZE))


def _entries(folder: Path | str, prefix: str) -> Iterator[tuple[str, Path, os.stat_result]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        yield name, Path(entry.path), entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path, f"{name}/")
