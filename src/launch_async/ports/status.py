"""What the agent shows of itself, for the admin endpoint."""

from typing import Protocol

import msgspec


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


class ItemView(msgspec.Struct, frozen=True, kw_only=True):
    """One open item."""

    id: str
    queue: str
    run: str
    """`entity/project/run_id`."""
    phase: str
    detail: str
    seconds_in_phase: float


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


class StatusSource(Protocol):
    """Gives the view; cheap, never waits."""

    def view(self) -> AgentView:
        """The agent now."""
        ...
