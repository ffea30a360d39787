"""Who holds a Lease: a name for each life, kept in the state folder and locked while it lasts.

A start after a crash finds the name of the life before it. The lock proves that life dead, so that
what it held need not be waited for.
"""

import fcntl
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from launch_async.domain.errors import AgentUnfit

_FILE = "lease-holder"


class Holder:
    """This life's name, and the one of the life before it in this state folder."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self.earlier = os.pread(file, 512, 0).decode(errors="replace").strip()

    def keep(self) -> None:
        """From now on this life's name is the one to find."""
        content = self.name.encode()
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))
        os.fsync(self._file)


@asynccontextmanager
async def held_folder(
    state_dir: Path, *, waits: Callable[[str], None], look_seconds: float
) -> AsyncGenerator[Holder, None]:
    """The holder of this state folder, once no other process is; `waits` hears of one.

    Raises:
        AgentUnfit: the folder cannot be used.
    """
    file = _opened(state_dir)
    try:
        while not _locked(file):
            waits(f"another agent uses the state folder {state_dir}")
            await anyio.sleep(look_seconds)
        yield Holder(file)
    finally:
        os.close(file)


def _opened(state_dir: Path) -> int:
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        return os.open(state_dir / _FILE, flags, 0o600)
    except OSError as error:
        raise AgentUnfit(
            f"the state folder {state_dir} cannot be used ({error.strerror}); "
            "set agent.state_dir to a folder that this user may write"
        ) from error


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
