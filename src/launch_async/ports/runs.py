"""What the run service knows of runs: asked for many at once."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from launch_async.domain.ids import RunRef

HIDDEN = "hidden"
"""State of a run that the service does not let this agent see."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run as W&B tracks it."""

    state: str
    """`pending`, `running`, `finished`, `failed`, `crashed`, `killed`, …, or `HIDDEN`."""
    stop_requested: bool = False


class RunDirectory(Protocol):
    """Looks up runs."""

    async def look_up(self, runs: Sequence[RunRef]) -> Mapping[RunRef, RunView]:
        """What is known of each run; runs that do not exist are absent. One request for all.

        Raises:
            Unavailable: after its own retries.
        """
        ...
