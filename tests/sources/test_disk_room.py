"""Fetching ends before the disk is full, for the item that fetches and for nobody else."""

import errno
import os
from pathlib import Path

import anyio
import pytest

from launch_async.adapters.sources.disk import room_left_in
from launch_async.domain.errors import ItemError, Reason, Unavailable

pytestmark = pytest.mark.anyio


async def test_a_block_that_comes_near_the_disks_end_is_ended(tmp_path: Path):
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    with pytest.raises(ItemError, match="no room to fetch") as caught, anyio.fail_after(5):
        async with room_left_in(tmp_path, left_bytes=free + (1 << 40)):
            await anyio.sleep_forever()
    assert caught.value.reason is Reason.SOURCE_UNAVAILABLE


async def test_a_full_disk_is_an_items_error(tmp_path: Path):
    with pytest.raises(ItemError, match=r"no room to fetch the job's code \(/x\)"):
        async with room_left_in(tmp_path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x")


@pytest.mark.parametrize("error", [Unavailable("away"), OSError(errno.EIO, "broken"), KeyError()])
async def test_other_errors_are_what_they_are(tmp_path: Path, error: Exception):
    with pytest.raises(type(error)) as caught:
        async with room_left_in(tmp_path):
            raise error
    assert caught.value is error


async def test_a_block_that_ends_is_not_waited_for(tmp_path: Path):
    with anyio.fail_after(2):
        async with room_left_in(tmp_path, left_bytes=0):
            await anyio.lowlevel.checkpoint()
