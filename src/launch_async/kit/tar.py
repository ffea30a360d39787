"""A folder as a tar archive, made piece by piece: neither the archive nor a large file is ever
whole in memory or on disk.
"""

import os
import stat
import tarfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import anyio.to_thread
import msgspec

PIECE_BYTES = 1 << 20


class Ownership(msgspec.Struct, frozen=True):
    """Whose the files are in the archive; `writable` lets everybody write to them."""

    uid: int = 0
    gid: int = 0
    writable: bool = False


OF_ROOT = Ownership()


async def tar_pieces(
    folder: Path, *, under: str = "", ownership: Ownership = OF_ROOT
) -> AsyncGenerator[bytes, None]:
    """The folder's content below the path `under`, in a fixed order, without times and names of
    users. Links are archived as links; reading is done in worker threads.

    Raises:
        OSError: a file cannot be read, or changes its size meanwhile.
    """
    pieces = _pieces(folder, under.strip("/"), ownership)
    while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
        yield piece


def _pieces(folder: Path, under: str, ownership: Ownership) -> Generator[bytes, None, None]:
    """Small entries are put together, so that not each costs a trip to a thread."""
    gathered = bytearray()
    for part in _parts(folder, under, ownership):
        gathered += part
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered) + bytes(2 * tarfile.BLOCKSIZE)


def _parts(folder: Path, under: str, ownership: Ownership) -> Generator[bytes, None, None]:
    if under:
        yield _header(tarfile.TarInfo(under), 0o755, tarfile.DIRTYPE, ownership)
    for here, subfolders, names in os.walk(folder, onerror=_fail):
        subfolders.sort()
        for name in sorted([*subfolders, *names]):
            path = Path(here) / name
            inner = path.relative_to(folder).as_posix()
            yield from _entry(path, f"{under}/{inner}" if under else inner, ownership)


def _entry(path: Path, name: str, ownership: Ownership) -> Generator[bytes, None, None]:
    info, found = tarfile.TarInfo(name), path.lstat()
    if stat.S_ISLNK(found.st_mode):
        info.linkname = path.readlink().as_posix()
        yield _header(info, 0o777, tarfile.SYMTYPE, ownership)
    elif stat.S_ISDIR(found.st_mode):
        yield _header(info, 0o755, tarfile.DIRTYPE, ownership)
    elif stat.S_ISREG(found.st_mode):
        info.size = found.st_size
        mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        yield _header(info, mode, tarfile.REGTYPE, ownership)
        yield from _content(path, found.st_size)


def _content(path: Path, size: int) -> Generator[bytes, None, None]:
    left = size
    with path.open("rb") as file:
        while left:
            piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                msg = f"{path} became shorter while it was read"
                raise OSError(msg)
            left -= len(piece)
            yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo, mode: int, kind: bytes, ownership: Ownership) -> bytes:
    info.type, info.uid, info.gid = kind, ownership.uid, ownership.gid
    info.mode = mode | (0o022 if ownership.writable else 0)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _fail(error: OSError) -> None:
    raise error
