"""The agent's memory across its lives: one entry per open item."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from launch_async.domain.ids import ItemId
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunHandle
from launch_async.kit.clock import Moment, unix_now

MAX_EVENTS = 50
"""Events kept of one item: the newest. A journey has about ten."""


class Event(msgspec.Struct, frozen=True):
    """Something that happened to an item, for people."""

    at: float
    """Unix time in seconds."""
    what: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """All that must survive a crash about one item."""

    item: Item
    phase: Phase
    handle: RunHandle | None = None
    outcome: Outcome | None = None
    launched: Moment | None = None
    """When the backend got the run."""
    events: tuple[Event, ...] = ()
    """What happened to it, oldest first."""
    stop_requested: bool = False
    """Whether the run's user, or the agent's operator, asked for it to be stopped."""
    cancelled: bool = False
    """Whether the agent's operator did."""

    def with_event(self, what: str, **changes: Any) -> "Entry":
        """The entry with these fields changed and one event more; the same one twice is one."""
        if not self.events or self.events[-1].what != what:
            event = Event(round(unix_now(), 3), what)
            changes["events"] = (*self.events, event)[-MAX_EVENTS:]
        return msgspec.structs.replace(self, **changes)


class Journal(Protocol):
    """Durable before it returns. Errors: `AgentUnfit` when the store cannot be written."""

    async def write(self, entry: Entry) -> None:
        """Keep this entry in place of the item's earlier one."""
        ...

    async def forget(self, item_id: ItemId) -> None:
        """The item is done; nothing of it must come back."""
        ...

    async def entries(self) -> Sequence[Entry]:
        """Open entries of earlier lives, oldest first."""
        ...
