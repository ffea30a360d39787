"""What open items' runs print, for people who ask the admin endpoint."""

from collections.abc import AsyncGenerator
from typing import Protocol


class RunLogs(Protocol):
    """By the item's id. Errors: `ItemError`, `Unavailable`: the backend cannot say."""

    async def log_tail(self, item_id: str, *, lines: int) -> tuple[str, ...]:
        """The last lines, oldest first; () for an item that is not open or has no run yet."""
        ...

    def logs(self, item_id: str) -> AsyncGenerator[bytes, None]:
        """All that is left of the log, followed to the run's end; waits for the run's start."""
        ...
