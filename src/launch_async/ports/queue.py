"""The queue service: where items come from and where their ends are told."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from launch_async.domain.ids import ItemId, QueueRef
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome


class RejectedItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item that was popped but cannot be understood; it is failed with `message`."""

    id: ItemId
    queue: QueueRef
    message: str
    lease: str | None = None
    """As `Item.lease`."""


class ItemQueue(Protocol):
    """Errors of every verb: `Unavailable` after its own retries, `AgentUnfit` on a refused key."""

    async def pop(self, queue: QueueRef) -> Item | RejectedItem | None:
        """The next item, leased to this agent for a short time; None when the queue is empty."""
        ...

    async def ack(self, item: Item) -> bool:
        """Claim the item with its run id. False: somebody else has it, or it was cancelled."""
        ...

    async def fail(
        self, item: Item | RejectedItem, outcome: Outcome, *, files: Sequence[str]
    ) -> None:
        """Tell that the item failed; `files` are paths in the agent's hidden run."""
        ...
