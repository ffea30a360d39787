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
from launch_async.domain.run import RunEnd, RunHandle, RunState, RunStatus
from launch_async.kit.clock import seconds_since

KILL_AFTER_SECONDS = 10.0
"""From asking a run to end to making it end."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def watch(tracked: Tracked, handle: RunHandle, tools: Tools) -> RunEnd:
    """How the run ended. A backend that does not answer is waited for: unknown is not failed."""
    watched = _Watched(tracked, handle, tools)
    async with anyio.create_task_group() as group:
        group.start_soon(watched.end_on_request, name="stop")
        group.start_soon(watched.end_unstarted, name="start timeout")
        group.start_soon(watched.end_overdue, name="run timeout")
        await watched.follow()
        group.cancel_scope.cancel()
    return watched.end


class _Watched:
    """One run under watch; its tasks share what they learn of it."""

    def __init__(self, tracked: Tracked, handle: RunHandle, tools: Tools) -> None:
        self._tracked = tracked
        self._handle = handle
        self._tools = tools
        self._runner = target_of(tracked.item, tools).runner
        self._seen = anyio.Event()
        self._seen_starting = anyio.Event()
        self._started = anyio.Event()
        self._waits_for = ""
        """What the backend said last of a run that has not started."""
        self._timed_out: RunEnd | None = None
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
                self._note(status)
                if status.end is not None:
                    self.end = self._judged(status.end)
                    return True
        return False

    def _note(self, status: RunStatus) -> None:
        if status.warning:
            self._tools.warnings.add(self._tracked, status.warning)
        if status.state is RunState.STARTING:
            self._waits_for = status.detail
            self._seen_starting.set()
        if status.state is RunState.RUNNING:
            self._started.set()
        if status.state is not RunState.UNKNOWN:
            self._seen.set()

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
        limit = self._tools.timeouts.start(self._tracked.item.queue)
        if not limit.seconds:
            return
        await self._seen_starting.wait()
        with anyio.move_on_after(self._left(limit.seconds)):
            await self._started.wait()
            return
        said = f"; its backend says: {self._waits_for}" if self._waits_for else ""
        await self._end_for(
            Reason.START_TIMEOUT, f"it was not running within {limit} after its launch{said}"
        )

    async def end_overdue(self) -> None:
        """A run that never ends must not hold its slot for ever, if its queue or agent says so."""
        limit = self._tools.timeouts.run(self._tracked.item.queue)
        if not limit.seconds:
            return
        await self._seen.wait()
        await anyio.sleep(self._left(limit.seconds))
        await self._end_for(Reason.RUN_TIMEOUT, f"it was not done within {limit} after its launch")

    def _left(self, limit_seconds: float) -> float:
        """What is left of a limit; nobody's clock but the machine's since its start counts."""
        launched = self._tracked.entry.launched
        passed = 0.0 if launched is None else seconds_since(launched)
        return max(limit_seconds - passed, min(limit_seconds, self._tools.timeouts.settle_seconds))

    async def _end_for(self, reason: Reason, detail: str) -> None:
        log.warning("run took too long", reason=reason.value, detail=detail)
        self._timed_out = RunEnd(exit_code=None, reason=reason, detail=detail)
        await self._cancel()

    def _judged(self, end: RunEnd) -> RunEnd:
        if self._timed_out is None:
            return end
        return msgspec.structs.replace(
            end, reason=self._timed_out.reason, detail=self._timed_out.detail
        )

    async def _cancel(self) -> None:
        await insist(
            lambda: self._runner.cancel(self._handle, within_seconds=KILL_AFTER_SECONDS),
            doing="ending the run",
            tracked=self._tracked,
            tools=self._tools,
        )
