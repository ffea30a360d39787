"""What the agent shows of itself, for the admin endpoint."""

from typing import Protocol

import msgspec

ALL_ITEMS = 1_000_000


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """One polled queue."""

    name: str
    max_jobs: int
    """-1: no limit of its own."""
    items: int
    """Items that hold a slot now."""
    polls: dict[str, int]
    """Looks into the queue by outcome: `item`, `empty`, `error`."""
    seconds_since_poll: float | None
    """Since the last look that was answered; None before the first."""
    weight: float = 1.0
    paused: bool = False
    paused_by_hand: bool = False
    """Else it is paused by its setting. By hand it stays so over restarts."""
    interval_seconds: float = 0.0
    """Between its looks at the moment; 0 while it has items."""
    missing: tuple[str, ...] = ()
    """Why nothing is taken from it now, in words."""
    fault: str = ""
    """Why its last look was not answered; empty when it was."""


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """One limit over all queues."""

    name: str
    """`jobs`, `waiting`, `schedulers`, `builds` or `target/NAME`."""
    limit: int
    """-1: none."""
    used: int


class ItemView(msgspec.Struct, frozen=True, kw_only=True):
    """One open item."""

    id: str
    queue: str
    run: str
    """`entity/project/run_id`."""
    phase: str
    detail: str
    seconds_in_phase: float


class DurationsView(msgspec.Struct, frozen=True):
    """Durations of one kind, as `kit.durations` counts them."""

    buckets: tuple[int, ...]
    sum_seconds: float


class ItemPage(msgspec.Struct, frozen=True):
    """Open items that match a filter, those first that are longest in their phase."""

    open: int
    matching: int
    items: tuple[ItemView, ...]


class AgentView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole agent at one moment."""

    name: str
    """Empty until it is registered."""
    identity: str
    state: str
    """`starting`, `polling` or `stopping`."""
    max_jobs: int
    queues: tuple[QueueView, ...]
    items: tuple[ItemView, ...]
    launched: int
    """Runs launched in this life."""
    adopted: int
    """Items taken over from an earlier life."""
    ended: dict[str, int]
    """Ended items of this life by reason; `succeeded` for those without one."""
    poll_seconds: float
    seconds_since_beat: float | None
    """Since the last heartbeat that was answered."""
    limits: tuple[LimitView, ...] = ()
    drift: int = 0
    """Slots that an audit found wrongly counted in this life; more than 0 is a fault of ours."""
    looks: int = 0
    """Pops that are under way."""
    phases: dict[str, dict[str, int]] = {}
    """All open items, counted by queue and phase."""
    durations: dict[str, DurationsView] = {}
    """How long items of this life were in each phase that they have left."""
    recovered: bool = True
    """Whether the items of earlier lives are taken over."""
    orphans: int = 0
    """Runs that bear this agent's mark on a backend, and that no item is about."""
    lost_runs: dict[str, int] = {}
    """Runs of this life that a backend had and the journal had not, by what was done: `recovered`,
    `removed` as the leftover of an item that has ended, `ended` as orphans."""
    lets_go_in_seconds: float | None = None
    """Until a stopping agent lets go of what is open; None: it waits for it, or does not stop."""
    unfit: str = ""
    """Why the agent is stopping and a person must act."""


class StatusSource(Protocol):
    """Gives the view; cheap, never waits."""

    def view(self, *, items: int = ALL_ITEMS) -> AgentView:
        """The agent now, with at most so many items: each costs."""
        ...
