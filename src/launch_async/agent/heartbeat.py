"""The agent's pulse: it says that it lives, hears whether it must stop, and which runs must."""

from collections.abc import Callable

import anyio
import structlog

from launch_async.agent.table import Table
from launch_async.domain.errors import Unavailable
from launch_async.domain.phase import Phase
from launch_async.ports.presence import AgentStatus, Presence
from launch_async.ports.runs import RunDirectory

LAST_WORD_SECONDS = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Heartbeat:
    """Beats every `interval_seconds` until cancelled."""

    def __init__(
        self,
        *,
        presence: Presence,
        runs: RunDirectory,
        table: Table,
        stop: Callable[[str], None],
        interval_seconds: float,
    ) -> None:
        self._presence = presence
        self._runs = runs
        self._table = table
        self._stop = stop
        self._interval_seconds = interval_seconds
        self.last_answer: float | None = None
        """When the service last answered, on the loop's clock."""

    async def run(self) -> None:
        """Until cancelled; an outage is logged once."""
        sick = False
        while True:
            try:
                await self._beat()
                await self._hear_stops()
            except Unavailable as error:
                if not sick:
                    log.warning("heartbeat not answered", reason=str(error))
                sick = True
            else:
                sick = False
                self.last_answer = anyio.current_time()
            await anyio.sleep(self._interval_seconds)

    async def last_word(self) -> None:
        """Tell that the agent is gone; bounded, and an outage is no error."""
        with anyio.move_on_after(LAST_WORD_SECONDS, shield=True):
            try:
                await self._presence.beat(AgentStatus.KILLED)
            except Unavailable as error:
                log.warning("could not say goodbye", reason=str(error))

    async def _beat(self) -> None:
        status = AgentStatus.RUNNING if len(self._table) else AgentStatus.POLLING
        if await self._presence.beat(status):
            self._stop("the service asked this agent to stop")

    async def _hear_stops(self) -> None:
        open_items = {
            tracked.item.run: tracked
            for tracked in self._table
            if tracked.entry.phase is Phase.RUNNING and not tracked.stop.is_set()
        }
        if not open_items:
            return
        for run, view in (await self._runs.look_up(list(open_items))).items():
            if view.stop_requested:
                await self._table.request_stop(open_items[run])
