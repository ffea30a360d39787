"""Wall-clock time for people, and moments from which durations are measured across lives.

Within one life durations are measured with `anyio.current_time`.
"""

import time

import msgspec

from launch_async.kit.procs import boot_id


def unix_now() -> float:
    """Seconds since the epoch."""
    return time.time()


class Moment(msgspec.Struct, frozen=True):
    """A moment that may be kept in a file; a jump of the wall clock does not move it."""

    unix: float
    boot: str
    monotonic: float
    """On the clock of that boot, which all processes share."""


def moment_now() -> Moment:
    """This moment."""
    return Moment(unix=time.time(), boot=boot_id(), monotonic=time.monotonic())


def seconds_since(moment: Moment) -> float:
    """How long ago; by the wall clock only when the machine was restarted since."""
    if moment.boot == boot_id():
        return max(0.0, time.monotonic() - moment.monotonic)
    return max(0.0, time.time() - moment.unix)


def moment_at(unix: float) -> Moment:
    """A moment that only the wall clock knows of; from now on a jump does not move it either."""
    passed = max(0.0, time.time() - unix)
    return Moment(unix=unix, boot=boot_id(), monotonic=time.monotonic() - passed)
