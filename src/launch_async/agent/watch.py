"""Watch: follow a run to its end on its backend, and end it when it must not go on."""

from contextlib import aclosing

import anyio
import msgspec
import structlog

from launch_async.agent.insist import MAX_PAUSE_SECONDS, insist
from launch_async.agent.prepare import target_of
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.errors import LaunchError, Reason, Unavailable
from launch_async.domain.run import RunEnd, RunHandle, RunState
from launch_async.kit.clock import unix_now

KILL_AFTER_SECONDS = 10.0
"""From asking a run to end to making it end."""
MIN_START_SECONDS = 60.0
"""What a run that is seen starting gets at least, so that a jump of the clock ends nothing."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def watch(tracked: Tracked, handle: RunHandle, tools: Tools) -> RunEnd:
    """How the run ended. A backend that does not answer is waited for: unknown is not failed."""
    watched = _Watched(tracked, handle, tools)
    async with anyio.create_task_group() as group:
        group.start_soon(watched.end_on_request, name="stop")
        group.start_soon(watched.end_unstarted, name="start timeout")
        await watched.follow()
        group.cancel_scope.cancel()
    return watched.end


class _Watched:
    """One run under watch; three tasks share what they learn of it."""

    def __init__(self, tracked: Tracked, handle: RunHandle, tools: Tools) -> None:
        self._tracked = tracked
        self._handle = handle
        self._tools = tools
        self._runner = target_of(tracked.item, tools).runner
        self._seen_starting = anyio.Event()
        self._started = anyio.Event()
        self._timed_out = False
        self.end = RunEnd(exit_code=None, reason=Reason.VANISHED)

    async def follow(self) -> None:
        """Until the runner knows the end; whatever breaks meanwhile is no verdict on the run."""
        pause = self._tools.retry_seconds
        while True:
            try:
                if await self._follow_once():
                    return
            except Unavailable as error:
                log.warning("watch interrupted", reason=str(error))
                pause = self._tools.retry_seconds
            except LaunchError:
                raise
            except Exception:
                log.exception("watch broke; it is tried again", in_seconds=pause)
                pause = min(pause * 2, MAX_PAUSE_SECONDS)
            self._tracked.detail = "the backend does not answer"
            await anyio.sleep(pause)

    async def _follow_once(self) -> bool:
        async with aclosing(self._runner.watch(self._handle)) as statuses:
            async for status in statuses:
                self._tracked.detail = status.detail or status.state.value
                if status.state is RunState.STARTING:
                    self._seen_starting.set()
                if status.state is RunState.RUNNING:
                    self._started.set()
                if status.end is not None:
                    self.end = self._judged(status.end)
                    return True
        return False

    async def end_on_request(self) -> None:
        """The service tells the run itself to stop; who does not within the grace is ended."""
        await self._tracked.stop.wait()
        log.info("stop requested", grace_seconds=self._tools.stop_grace_seconds)
        await anyio.sleep(self._tools.stop_grace_seconds)
        await self._cancel()

    async def end_unstarted(self) -> None:
        """A run that never gets to run must not hold its slot for ever.

        Counted from its launch, but only for a run that its backend shows as starting: one that an
        earlier life launched long ago may run well, and is looked at first.
        """
        limit = self._tools.start_timeout_seconds
        if not limit:
            return
        await self._seen_starting.wait()
        waited = max(0.0, unix_now() - (self._tracked.entry.launched_at or unix_now()))
        with anyio.move_on_after(max(limit - waited, min(limit, MIN_START_SECONDS))):
            await self._started.wait()
            return
        log.warning("run did not start in time", seconds=limit)
        self._timed_out = True
        await self._cancel()

    def _judged(self, end: RunEnd) -> RunEnd:
        if not self._timed_out:
            return end
        limit = f"{self._tools.start_timeout_seconds:.0f} s"
        detail = f"not running {limit} after its launch"
        return msgspec.structs.replace(end, reason=Reason.START_TIMEOUT, detail=detail)

    async def _cancel(self) -> None:
        await insist(
            lambda: self._runner.cancel(self._handle, within_seconds=KILL_AFTER_SECONDS),
            doing="ending the run",
            tracked=self._tracked,
            tools=self._tools,
        )
