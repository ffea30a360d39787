"""What people may do with a running agent: the admin endpoint, signals and the CLI call it."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from launch_async.ports.status import ALL_ITEMS, AgentView, ItemPage, ItemView


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why an item or a queue is where it is."""

    subject: str
    """`item ID` or `queue NAME`."""
    state: str
    """An item's phase; for a queue `polled`, `paused`, `waiting for room`, `not answering`, or
    `not polled` by an agent that starts or stops."""
    seconds: float | None
    """Since when; None when it is not known."""
    reasons: tuple[str, ...]
    """Each limit, lock or outage that holds it now; empty: nothing does."""
    next: str
    """What comes next, and when if that is known."""


class AgentControl(Protocol):
    """Every verb may be repeated without harm. Errors: `ConfigError` names what is wrong."""

    def view(self, *, items: int = ALL_ITEMS) -> AgentView:
        """The agent now, with at most so many items: each costs."""
        ...

    def items(self, *, queue: str | None, phase: str | None, most: int) -> ItemPage:
        """Open items; None takes those of any queue or phase."""
        ...

    def item(self, item_id: str) -> ItemView | None:
        """One open item."""
        ...

    def explain(self, name: str) -> Explanation | None:
        """Why this item, or else this queue, is where it is; None: this agent has no such thing."""
        ...

    def drain(self, *, timeout_seconds: float | None = None) -> None:
        """Take nothing new; the agent ends when its items have ended, or lets go of them after the
        timeout. Said again, the last timeout counts.
        """
        ...

    async def pause(self, queue: str) -> None:
        """Take nothing more from this queue until it is resumed, over restarts of the agent too;
        its open items go on.

        Raises:
            ConfigError: this agent does not poll it.
            LaunchError: it is paused until the agent ends, as it cannot be kept for longer.
        """
        ...

    async def resume(self, queue: str) -> None:
        """Take from this queue again, in this life of the agent even if its setting says paused.
        Raises as `pause`.
        """
        ...

    async def cancel(self, item_id: str) -> bool:
        """End this item, in whatever phase; its user reads that the agent's operator did it. False:
        it is not open here, or has ended already.
        """
        ...

    async def reload(self) -> Sequence[str]:
        """Read the configuration again; what changed, and what only the next start changes.

        Raises:
            ConfigError: it is wrong; everything stays as it was.
        """
        ...
