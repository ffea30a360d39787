"""What the run service knows of runs, asked for many at once, and that a run shall end."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from launch_async.domain.ids import RunRef

HIDDEN = "hidden"
"""State of a run that the service does not let this agent see."""
ALIVE = frozenset({"running", "preempting"})
ENDED = frozenset({"finished", "failed", "crashed", "killed", "preempted"})


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run as W&B tracks it."""

    state: str
    """`pending`, `running`, `finished`, `failed`, `crashed`, `killed`, …, or `HIDDEN`."""
    stop_requested: bool = False

    @property
    def alive(self) -> bool:
        """Whether it has begun, and not ended as far as the service knows."""
        return self.state in ALIVE

    @property
    def ended(self) -> bool:
        """Whether it said its last word, or the service gave it up."""
        return self.state in ENDED

    @property
    def finished(self) -> bool:
        """Whether it ended well."""
        return self.state == "finished"


class RunDirectory(Protocol):
    """Looks up runs, and asks them to stop."""

    async def look_up(self, runs: Sequence[RunRef]) -> Mapping[RunRef, RunView]:
        """What is known of each run; runs that do not exist are absent. One request for all.

        Raises:
            Unavailable: after its own retries.
        """
        ...

    async def ask_to_stop(self, run: RunRef) -> None:
        """Let the run hear that it shall end, as if its user had asked for it. A service that
        refuses is obeyed: the caller ends the run by other means.

        Raises:
            Unavailable: after its own retries.
        """
        ...
