"""A run on a backend: what finds it again, whose it is, and how it is doing."""

from enum import StrEnum
from typing import Any

import msgspec

from launch_async.domain.errors import Reason
from launch_async.domain.ids import ItemId, QueueRef, RunId, RunRef


class RunHandle(msgspec.Struct, frozen=True, kw_only=True):
    """Plain data that finds a run on its backend again, in this life of the agent or the next."""

    backend: str
    """Name of the runner that made it, e.g. `process` or `docker`."""
    run_id: RunId
    item_id: ItemId
    data: dict[str, Any]
    """The runner's own words: a pid with its start time, a container's id, a job's name."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run comes from: its backend keeps it, so that a lost journal loses no run.

    Holds no secrets: labels are for everybody who may use the backend. A stop request is not in
    it, as the run service goes on saying it.
    """

    identity: str
    """The agent's lasting identity."""
    life: str
    """The life of the agent that launched it; another one's runs may be adopted."""
    service: str
    """Address of the service that the item came from."""
    item_id: ItemId
    queue: QueueRef
    run: RunRef
    resource: str
    """The resource type, in W&B's words: names the target."""
    job: str | None = None
    image: str | None = None
    """What the item names, as in its spec: a job or an image."""
    author: str | None = None
    lease: str | None = None
    """As `Item.lease`: names a claim, and opens nothing without a key (docs/adr/0007)."""
    own_key: bool = False
    """Whether the run has a key made for it; the key itself is nowhere but with the run."""
    popped_at: float = 0.0
    launched_at: float = 0.0
    """Unix times in seconds, for people."""


class Trace(StrEnum):
    """What a backend has of a run."""

    PREPARED = "prepared"
    """Made, and certainly never begun: `launch` begins it."""
    ALIVE = "alive"
    ENDED = "ended"


class FoundRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that a backend has, whether or not anybody remembers it."""

    handle: RunHandle
    trace: Trace
    origin: Origin | None
    """None: whoever launched it wrote down less (an earlier version)."""


class RunState(StrEnum):
    """What a backend says of a run. UNKNOWN is not a verdict: it never ends a run."""

    STARTING = "starting"
    RUNNING = "running"
    UNKNOWN = "unknown"
    ENDED = "ended"


class StartCause(StrEnum):
    """Why a run has not begun, in words that limits of time and metrics may be kept by."""

    PREPARING = "preparing"
    """The usual steps are under way."""
    QUEUED = "queued"
    """Held back on purpose, until a queueing system or a person lets it go."""
    REFUSED = "refused"
    """The backend makes no part of it: a quota, a webhook, a policy."""
    UNSCHEDULABLE = "unschedulable"
    """No machine has what it needs."""
    IMAGE = "image"
    """Its image cannot be had."""
    CONFIG = "config"
    """Something that it refers to is missing: a secret, a config map, a key of one."""
    VOLUME = "volume"
    """A volume cannot be mounted."""
    INIT = "init"
    """What runs before it is not done, or fails."""
    CONTAINER = "container"
    """Its machine cannot make or start it."""


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended on its backend."""

    exit_code: int | None
    """Exit code of the program; None when it was ended by a signal or nobody knows."""
    signal: int | None = None
    """Number of the signal that ended it."""
    reason: Reason | None = None
    """None: the exit code says it all. Else what the backend knows, e.g. OUT_OF_MEMORY;
    PREEMPTED asks for the item to be queued again with the same run."""
    lost: bool = False
    """Whether nobody saw how it ended: its W&B run may know. Not of a run that somebody removed."""
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
    cause: StartCause | None = None
    """Of a run that has not begun, where the backend knows; `detail` says it in words."""
    held_until: float | None = None
    """Unix time at which a run that was held back was let go: its time to begin counts from it."""
    warning: str = ""
    """What the item's user should know now, such as an image that cannot be pulled; told once."""
    end: RunEnd | None = None
