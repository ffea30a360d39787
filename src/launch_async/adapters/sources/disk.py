"""A disk without room for a job's code: that job's end, and nobody else's.

The agent's journal is on the same disk: some room is left for it while code is fetched.
"""

import errno
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from launch_async.domain.errors import ItemError, Reason, gravest

LEFT_BYTES = 128 << 20
LOOK_SECONDS = 0.25

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def no_room(folder: Path, *, needed_bytes: int | None = None) -> ItemError:
    """The error for code that does not fit on the disk of `folder`."""
    needs = f" for its {needed_bytes / 1e6:.0f} MB" if needed_bytes else ""
    return ItemError(
        f"the agent's disk has no room{needs} to fetch the job's code ({folder}); free some there,"
        " then launch again",
        reason=Reason.SOURCE_UNAVAILABLE,
    )


@contextmanager
def room_in(folder: Path) -> Generator[None, None, None]:
    """Tell of a full disk as this item's error: the agent itself may go on.

    Raises:
        ItemError: the block met a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise no_room(Path(error.filename or folder)) from error


@asynccontextmanager
async def room_left_in(folder: Path, *, left_bytes: int = LEFT_BYTES) -> AsyncGenerator[None, None]:
    """As `room_in`, and end the block before it takes the last of the disk."""
    with room_in(folder):
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_watch, folder, left_bytes, name="disk room")
                yield
                tasks.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise gravest(errors) from errors


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raises ItemError when so much certainly does not fit; blocks for a moment."""
    if needed_bytes > _free_bytes(folder):
        raise no_room(folder, needed_bytes=needed_bytes)


async def _watch(folder: Path, left_bytes: int) -> None:
    while True:
        if await anyio.to_thread.run_sync(_free_bytes, folder) <= left_bytes:
            raise no_room(folder)
        await anyio.sleep(LOOK_SECONDS)


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
