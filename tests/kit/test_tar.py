"""A folder becomes a tar archive in pieces, the same for the same content."""

import io
import os
import tarfile
import tracemalloc
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from launch_async.kit.tar import PIECE_BYTES, Ownership, tar_pieces

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "one"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "a.py").write_text("a")
    (root / "sub" / "run").write_bytes(b"x" * 513)
    (root / "sub" / "run").chmod(0o700)
    (root / "link").symlink_to("/etc/passwd")
    (root / ("n" * 120)).write_text("long name")
    (root / "größe").write_text("")
    return root


async def archived(folder: Path, **settings: object) -> bytes:
    return b"".join([piece async for piece in tar_pieces(folder, **settings)])  # type: ignore[arg-type]


async def test_an_archive_has_all_files_with_their_content(folder: Path):
    with tarfile.open(fileobj=io.BytesIO(await archived(folder))) as tar:
        found = {info.name: info for info in tar}
        assert set(found) == {"a.py", "link", "n" * 120, "größe", "sub", "sub/empty", "sub/run"}
        content = tar.extractfile("sub/run")
        assert content is not None
        assert content.read() == b"x" * 513
        assert (found["sub/run"].mode, found["a.py"].mode) == (0o755, 0o644)
        assert (found["link"].issym(), found["link"].linkname) == (True, "/etc/passwd")
        assert {(info.uid, info.gid, info.mtime) for info in found.values()} == {(0, 0, 0)}


async def test_a_place_and_an_owner_are_given_to_all(folder: Path):
    settings = {"under": "/mnt/wandb", "ownership": Ownership(7, 8, writable=True)}
    with tarfile.open(fileobj=io.BytesIO(await archived(folder, **settings))) as tar:
        infos = tar.getmembers()
    assert all(info.name.startswith("mnt/wandb") for info in infos)
    assert {(info.uid, info.gid) for info in infos} == {(7, 8)}
    assert {oct(info.mode) for info in infos} == {"0o777", "0o666"}


async def test_equal_content_is_an_equal_archive(folder: Path, tmp_path: Path):
    first = await archived(folder)
    os.utime(folder / "a.py", (1, 1))
    moved = folder.rename(tmp_path / "two")
    assert await archived(moved) == first


async def test_a_large_file_is_never_whole_in_memory(tmp_path: Path):
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 200 * PIECE_BYTES)
    total = 0
    tracemalloc.start()
    try:
        async for piece in tar_pieces(tmp_path):
            total += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 200 * PIECE_BYTES
    assert peak < 10 * PIECE_BYTES


async def test_a_file_that_gets_shorter_meanwhile_is_an_error(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x" * (3 * PIECE_BYTES))
    pieces = tar_pieces(tmp_path)
    await anext(pieces)
    os.truncate(tmp_path / "a", 10)
    with pytest.raises(OSError, match="became shorter"):
        await archived_rest(pieces)


async def archived_rest(pieces: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([piece async for piece in pieces])
