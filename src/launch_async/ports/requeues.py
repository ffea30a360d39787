"""Back into the queue with the same run: for items whose run was preempted."""

from collections.abc import Sequence
from typing import Protocol

from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome


class Requeues(Protocol):
    """Errors of every verb: `Unavailable`, `AgentUnfit` on a refused key."""

    async def repeatable(self) -> bool:
        """Whether this service may be asked twice for the same requeue: it then queues it once."""
        ...

    async def requeue(self, item: Item, outcome: Outcome, *, files: Sequence[str]) -> None:
        """End the item as `outcome` says and queue it anew, to go on with its run.

        The new item has the same spec and run id, and counts one preemption more.

        Raises:
            ItemError: the service refuses it.
        """
        ...
