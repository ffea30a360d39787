"""Retention: what grows with time is cut back at a slow beat."""

from collections.abc import Callable, Mapping, Set

import anyio
import structlog

from launch_async.domain.ids import RunId
from launch_async.ports.retention import Prunable

INTERVAL_SECONDS = 3600.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Retention:
    """Cuts all stores back, one after the other; one that cannot be costs the others nothing."""

    def __init__(
        self,
        stores: Mapping[str, Prunable],
        *,
        open_runs: Callable[[], Set[RunId]],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._stores = stores
        self._open_runs = open_runs
        self._interval_seconds = interval_seconds

    async def serve(self) -> None:
        """Until cancelled."""
        while True:
            for name, store in self._stores.items():
                await self._prune(name, store)
            await anyio.sleep(self._interval_seconds)

    async def _prune(self, name: str, store: Prunable) -> None:
        try:
            pruned = await store.prune(self._open_runs())
        except OSError as error:
            log.warning("cannot be cut back", what=name, reason=str(error))
        else:
            if pruned.removed:
                megabytes = round(pruned.freed_bytes / 1e6, 1)
                log.info("cut back", what=name, removed=pruned.removed, freed_mb=megabytes)
