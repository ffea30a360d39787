"""How the agent comes to its end: what was said, and how long open items may go on.

```
drain        takes nothing new; waits for what is open, as long as whoever drains it says
stop         the same, but what is open is let go after the grace; also in the middle of a drain
stop again   lets go at once
```
"""

import math

import anyio
import structlog

from launch_async.agent.table import Table
from launch_async.kit.latch import Latch

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Stopping:
    """One way to the end; nothing leads back."""

    def __init__(self, table: Table) -> None:
        self.begun = Latch()
        """Set when nothing new is to be taken."""
        self._table = table
        self._drained_at = math.inf
        self._stopped_at = math.inf
        """When what is open is let go, on the loop's clock: for a drain, and for a stop."""
        self._waiting: anyio.CancelScope | None = None

    @property
    def is_stop(self) -> bool:
        """Whether it is more than a drain."""
        return self._stopped_at < math.inf

    @property
    def seconds_left(self) -> float | None:
        """Until what is open is let go; None while nobody has set an end."""
        end = min(self._drained_at, self._stopped_at)
        return None if end == math.inf else max(0.0, end - anyio.current_time())

    def drain(self, cause: str, *, timeout_seconds: float | None) -> None:
        """Begin to stop, and wait so long for what is open. Said again, the last word counts."""
        timeout = math.inf if timeout_seconds is None else timeout_seconds
        self._drained_at = anyio.current_time() + timeout
        self._begin(cause, timeout_seconds)

    def stop(self, cause: str, *, grace_seconds: float) -> None:
        """Begin to stop, and let go after the grace. Said again, it changes nothing."""
        if not self.is_stop:
            self._stopped_at = anyio.current_time() + grace_seconds
            self._begin(cause, grace_seconds)

    def hurry(self) -> None:
        """Let go at once."""
        self._stopped_at = anyio.current_time()
        self._set_end()

    async def wait_for_items(self) -> None:
        """Until nothing is open, or it is time to let go."""
        with anyio.CancelScope() as self._waiting:
            self._set_end()
            while len(self._table):
                await self._table.changed.wait()
        if len(self._table):
            open_items = len(self._table)
            log.info("items let go", open_items=open_items, hint="the next start adopts them")

    def _begin(self, cause: str, within_seconds: float | None) -> None:
        log.info(
            "stopping",
            cause=cause,
            open_items=len(self._table),
            let_go_after_seconds=within_seconds,
        )
        self.begun.set()
        self._set_end()

    def _set_end(self) -> None:
        if self._waiting is not None:
            self._waiting.deadline = min(self._drained_at, self._stopped_at)
