"""A run on a backend: what finds it again, and how it is doing."""

from enum import StrEnum
from typing import Any

import msgspec

from launch_async.domain.errors import Reason
from launch_async.domain.ids import ItemId, RunId


class RunHandle(msgspec.Struct, frozen=True, kw_only=True):
    """Plain data that finds a run on its backend again, in this life of the agent or the next."""

    backend: str
    """Name of the runner that made it, e.g. `process` or `docker`."""
    run_id: RunId
    item_id: ItemId
    data: dict[str, Any]
    """The runner's own words: a pid with its start time, a container's id, a job's name."""


class RunState(StrEnum):
    """What a backend says of a run. UNKNOWN is not a verdict: it never ends a run."""

    STARTING = "starting"
    RUNNING = "running"
    UNKNOWN = "unknown"
    ENDED = "ended"


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended on its backend."""

    exit_code: int | None
    """Exit code of the program; None when it was ended by a signal or nobody knows."""
    signal: int | None = None
    """Number of the signal that ended it."""
    reason: Reason | None = None
    """None: the exit code says it all. Else what the backend knows, e.g. OUT_OF_MEMORY."""
    detail: str = ""
    """One sentence for people, without secrets."""

    @property
    def clean(self) -> bool:
        """Whether the program itself ended with 0."""
        return self.exit_code == 0 and self.reason is None


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One change in a run's life; the last one that a watch gives carries `end`."""

    state: RunState
    detail: str = ""
    end: RunEnd | None = None
