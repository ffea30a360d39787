"""The agent's pulse: it says that it lives, hears whether it must stop, and which runs must."""

from collections.abc import Awaitable, Callable

import anyio
import structlog

from launch_async.agent.table import Table
from launch_async.domain.errors import AgentUnfit, LaunchError
from launch_async.domain.phase import Phase
from launch_async.ports.presence import AgentStatus, Presence
from launch_async.ports.runs import RunDirectory

LAST_WORD_SECONDS = 5.0

_STOPPABLE = frozenset({Phase.PREPARING, Phase.LAUNCHING, Phase.RUNNING})

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
        """Until cancelled. Beats and stop requests have loops of their own: an outage of one must
        not silence the other.
        """
        async with anyio.create_task_group() as loops:
            loops.start_soon(self._repeat, self._beat, "heartbeat", name="beats")
            loops.start_soon(self._repeat, self._hear_stops, "stop requests", name="stops")

    async def last_word(self) -> None:
        """Tell that the agent is gone; bounded, and no error matters any more."""
        with anyio.move_on_after(LAST_WORD_SECONDS, shield=True):
            try:
                await self._presence.beat(AgentStatus.KILLED)
            except Exception as error:  # noqa: BLE001 - the edge of the agent's last act
                log.warning("could not say goodbye", reason=str(error))

    async def _repeat(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        """An outage is logged once."""
        sick = False
        while True:
            try:
                await work()
            except AgentUnfit:
                raise
            except Exception as error:
                if not sick:
                    reason = str(error) or type(error).__name__
                    unforeseen = not isinstance(error, LaunchError)
                    log.warning("not answered", what=what, reason=reason, exc_info=unforeseen)
                sick = True
            else:
                sick = False
            await anyio.sleep(self._interval_seconds)

    async def _beat(self) -> None:
        status = AgentStatus.RUNNING if len(self._table) else AgentStatus.POLLING
        if await self._presence.beat(status):
            self._stop("the service asked this agent to stop")
        self.last_answer = anyio.current_time()

    async def _hear_stops(self) -> None:
        open_items = {
            tracked.item.run: tracked
            for tracked in self._table
            if tracked.entry.phase in _STOPPABLE and not tracked.stop.is_set()
        }
        if not open_items:
            return
        for run, view in (await self._runs.look_up(list(open_items))).items():
            open_items[run].run_lived |= view.alive
            if view.stop_requested:
                await self._table.request_stop(open_items[run])
