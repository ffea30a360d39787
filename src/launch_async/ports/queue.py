"""The queue service: where items come from and where their ends are told."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from launch_async.domain.errors import Unavailable
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


Popped = Item | RejectedItem | Unavailable | None
"""What one look found; None: the queue is empty. An error of one queue is not the others'."""


class ItemQueue(Protocol):
    """Errors of every verb: `Unavailable` after its own retries, `AgentUnfit` on a refused key."""

    async def pop(self, queues: Sequence[QueueRef]) -> Sequence[Popped]:
        """Look into each of these queues, all with one request.

        What is found is leased to this agent for a short time. A queue that is named n times gives
        up to n items. Not retried: an answer that was lost may have leased items already.

        Raises:
            Unavailable: it is not known of any queue what it holds; perhaps because of one of them,
                or because they are too many for the service.
        """
        ...

    async def ack(self, item: Item) -> bool:
        """Claim the item with its run id. False: somebody else has it, or it was cancelled."""
        ...

    async def fail(
        self, item: Item | RejectedItem, outcome: Outcome, *, files: Sequence[str]
    ) -> None:
        """Tell that the item failed; `files` are paths in the agent's hidden run."""
        ...

    async def warn(self, item: Item, message: str) -> None:
        """Tell something that the item's user should know now; the same text twice is once."""
        ...


class QueueHints(Protocol):
    """A service's own word on which queues have items: makes looks sooner, never rarer."""

    async def next(self, queues: Sequence[QueueRef]) -> Sequence[QueueRef]:
        """Wait (a long poll) until some of these queues got items, and name them."""
        ...
