"""A disk without room for a job's code: that job's end, and nobody else's."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from launch_async.domain.errors import ItemError, Reason

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


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raises ItemError when so much certainly does not fit; blocks for a moment."""
    free = os.statvfs(folder)
    if needed_bytes > free.f_bavail * free.f_frsize:
        raise no_room(folder, needed_bytes=needed_bytes)
