"""Build contexts as tars: whole, bounded in memory, and ended with who reads them."""

import io
import os
import tarfile
from pathlib import Path

import anyio
import pytest

from launch_async.adapters.builders.tar import context_tar
from launch_async.domain.errors import ItemError

pytestmark = pytest.mark.anyio


async def read(folder: Path) -> tarfile.TarFile:
    async with context_tar(folder) as chunks:
        content = b"".join([chunk async for chunk in chunks])
    return tarfile.open(fileobj=io.BytesIO(content), mode="r:")


async def test_a_tar_has_all_that_the_folder_has(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ("long" * 60)).write_bytes(b"x" * 1_000_001)
    (tmp_path / "a.sh").write_text("#!/bin/sh")
    (tmp_path / "a.sh").chmod(0o755)
    os.utime(tmp_path / "a.sh", (1_700_000_000, 1_700_000_000))
    (tmp_path / "link").symlink_to("a.sh")
    (tmp_path / "ümläut").touch()
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))).touch()
    os.mkfifo(tmp_path / "pipe")

    with await read(tmp_path) as tar:
        names = [entry.name for entry in tar]
        assert names == ["a.sh", "b", f"b/{'long' * 60}", "link", "ümläut", "\udcff"]
        script, link = tar.getmember("a.sh"), tar.getmember("link")
        assert (script.mode, script.mtime, script.uid, script.uname) == (
            0o755,
            1_700_000_000,
            0,
            "",
        )
        assert link.linkname == "a.sh"
        content = tar.extractfile(names[2])
        assert content is not None
        assert content.read() == b"x" * 1_000_001


async def test_the_same_folder_gives_the_same_tar(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)
    tars = []
    for _ in range(2):
        async with context_tar(tmp_path) as chunks:
            tars.append(b"".join([chunk async for chunk in chunks]))

    assert tars[0] == tars[1]


@pytest.mark.parametrize("chunks_read", [0, 1, 100])
async def test_leaving_early_ends_the_making(tmp_path: Path, chunks_read: int) -> None:
    make_huge(tmp_path)

    with anyio.fail_after(5):
        async with context_tar(tmp_path) as chunks:
            for _ in range(chunks_read):
                assert await anext(chunks)


async def test_what_nobody_reads_is_not_made(tmp_path: Path) -> None:
    make_huge(tmp_path)
    before = bytes_read()

    async with context_tar(tmp_path):
        await anyio.sleep(0.3)
        assert bytes_read() - before < 10 * 2**20


async def test_a_file_that_shrinks_while_it_is_read_fails_the_build(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x" * 5_000_000)

    async def read_and_cut() -> None:
        async with context_tar(tmp_path) as chunks:
            assert await anext(chunks)
            os.truncate(tmp_path / "a", 3_000_000)
            async for _ in chunks:
                pass

    with pytest.raises(ItemError, match="context cannot be read: a file became shorter"):
        await read_and_cut()


def make_huge(folder: Path) -> None:
    """Put a file of 10 GiB into it that takes no room."""
    (folder / "huge").touch()
    os.truncate(folder / "huge", 10 * 2**30)


def bytes_read() -> int:
    """By this process, from files and pipes."""
    facts = Path("/proc/self/io").read_text().split()
    return int(facts[facts.index("rchar:") + 1])
