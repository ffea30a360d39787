"""The agent's memory across its lives: one entry per open item."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from launch_async.domain.ids import ItemId
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunHandle


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """All that must survive a crash about one item."""

    item: Item
    phase: Phase
    handle: RunHandle | None = None
    outcome: Outcome | None = None
    launched_at: float | None = None
    """Unix time in seconds at which the backend got the run."""
    stop_requested: bool = False
    """Whether the run's user asked for it to be stopped."""


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
