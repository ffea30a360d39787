"""Facts about processes from /proc, waiting for their end by pidfd, and signals to groups.

A pid alone names nothing for long: it is reused. A pid with its start time (in clock ticks since
boot) and the boot's id names one process for ever. Linux only.
"""

import os
import signal
from functools import cache
from pathlib import Path

import anyio

_PROC = Path("/proc")
_STATE = 0  # positions in /proc/<pid>/stat after the program's name, proc(5)
_GROUP = 2
_START_TICKS = 19


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return text[text.rindex(")") + 2 :].split()  # a program's name may hold spaces and brackets


def start_time_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is no such process."""
    fields = _stat(pid)
    return None if fields is None else int(fields[_START_TICKS])


@cache
def boot_id() -> str:
    """Id of the machine's present boot."""
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def is_same_process(pid: int, ticks: int, boot: str) -> bool:
    """Whether `pid` is the process that had it at `ticks` of that boot; a zombie still is."""
    return boot == boot_id() and start_time_ticks(pid) == ticks


async def wait_for_exit(pid: int, *, ticks: int | None = None) -> None:
    """Return once the process has ended (a zombie has); at once if there is none.

    With `ticks` another process that now has this pid counts as ended.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at after the descriptor is open: from then on the pid's owner is pinned.
        if ticks is None or start_time_ticks(pid) == ticks:
            await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def signal_group(group: int, number: signal.Signals) -> bool:
    """Send a signal to a process group; False when it has no members (any more)."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def group_members(group: int) -> tuple[int, ...]:
    """Pids of the group's members that still run; zombies do not count."""
    members: list[int] = []
    for entry in _PROC.iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields is not None and int(fields[_GROUP]) == group and fields[_STATE] not in "ZX":
            members.append(int(entry.name))
    return tuple(members)
