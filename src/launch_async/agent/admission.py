"""Room before pop: who may look into a queue now.

Slots are derived from the table of open items, never counted up and down. A look holds a slot for
the moment of its pop, so that no limit is ever exceeded: at most one item per look is leased, and
it is in the table before the look ends.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from launch_async.agent.table import Table
from launch_async.domain.ids import QueueRef

NO_LIMIT = -1


class QueueLimit:
    """A queue and how many of its items may be open at once; -1 is no limit of its own."""

    def __init__(self, ref: QueueRef, max_jobs: int) -> None:
        self.ref = ref
        self.max_jobs = max_jobs


class Admission:
    """Grants looks while there is room, in the order in which they were asked for."""

    def __init__(self, table: Table, *, max_jobs: int) -> None:
        self._table = table
        self._looks: list[QueueRef] = []
        self.max_jobs = max_jobs

    def has_room(self, queue: QueueLimit) -> bool:
        """Whether one more item of this queue may be taken."""
        return _below(self.max_jobs, len(self._table) + len(self._looks)) and _below(
            queue.max_jobs, self._table.count(queue.ref) + self._looks.count(queue.ref)
        )

    @asynccontextmanager
    async def look(self, queue: QueueLimit) -> AsyncGenerator[None, None]:
        """Wait for room, then hold it for the length of the block."""
        changed = self._table.changed
        async with changed:
            while not self.has_room(queue):
                await changed.wait()
            self._looks.append(queue.ref)
        try:
            yield
        finally:
            self._looks.remove(queue.ref)
            with anyio.CancelScope(shield=True):
                async with changed:
                    changed.notify_all()


def _below(limit: int, used: int) -> bool:
    return limit == NO_LIMIT or used < limit
