"""Watch: follow a run to its end on its backend, and end it when it must not go on."""

import math
from contextlib import aclosing

import anyio
import msgspec
import structlog

from launch_async.agent.insist import MAX_PAUSE_SECONDS, insist
from launch_async.agent.prepare import stopped_by, target_of
from launch_async.agent.table import Tracked
from launch_async.agent.timeouts import TimeLimit
from launch_async.agent.tools import Tools
from launch_async.domain.errors import LaunchError, Reason, Unavailable
from launch_async.domain.run import RunEnd, RunHandle, RunState, RunStatus, StartCause
from launch_async.kit.clock import seconds_since, unix_now

KILL_AFTER_SECONDS = 10.0
"""From asking a run to end to making it end."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def watch(tracked: Tracked, handle: RunHandle, tools: Tools) -> RunEnd:
    """How the run ended. A backend that does not answer is waited for: unknown is not failed."""
    watched = _Watched(tracked, handle, tools)
    if not await watched.ended_undisturbed():
        async with anyio.create_task_group() as group:
            group.start_soon(watched.end_it, name="end")
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
        self._start_by = math.inf
        self._wait_by = math.inf
        self._end_by = math.inf
        """Moments of the loop's clock; `_patience` ends at the first of them."""
        self._patience = anyio.CancelScope()
        self._seen: set[RunState] = set()
        self._waits_for = ""
        self._cause: StartCause | None = None
        """What the backend said last of a run that has not started, in words and of a list."""
        self._timed_out: RunEnd | None = None
        self._over = False
        self.end = RunEnd(exit_code=None, reason=Reason.VANISHED, lost=True)

    async def ended_undisturbed(self) -> bool:
        """Whether the run ended before its user or a limit wanted it to: most runs need no more."""
        while self._overdue() is None and not self._tracked.stop.is_set():
            with anyio.CancelScope(deadline=self._next_limit()) as self._patience:
                await self._tracked.stop.unless_set(self.follow)
            if self._over:
                return True
        return False

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
                    self._over = True
                    return True
        return False

    def _note(self, status: RunStatus) -> None:
        if status.warning:
            self._tools.warnings.add(self._tracked, status.warning)
        if status.state is RunState.STARTING:
            self._waits_for = status.detail
            self._set_limits_of_start(status)
        if status.state is not RunState.UNKNOWN and status.state not in self._seen:
            self._set_limits(status.state)

    def _set_limits(self, state: RunState) -> None:
        """A state was seen for the first time.

        Limits count from the launch, but only for a run that its backend shows: one that an earlier
        life launched long ago may run well, or have ended, and is looked at first.
        """
        queue, timeouts = self._tracked.item.queue, self._tools.timeouts
        if not self._seen:
            self._end_by = self._moment(timeouts.run(queue))
        if state is RunState.RUNNING:
            self._start_by = self._wait_by = math.inf
        self._seen.add(state)
        self._patience.deadline = self._next_limit()

    def _set_limits_of_start(self, status: RunStatus) -> None:
        """A run waits for something: how long it may, and how long its start may take in all.

        Being held back is no slow start: the time for that begins when it is let go.
        """
        if RunState.RUNNING in self._seen:
            return
        cause, timeouts = status.cause, self._tools.timeouts
        first = RunState.STARTING not in self._seen
        if cause is not self._cause or first:
            limit = timeouts.wait(cause).seconds
            self._wait_by = anyio.current_time() + limit if limit else math.inf
        if cause is StartCause.QUEUED:
            self._start_by = math.inf
        elif first or self._cause is StartCause.QUEUED:
            held = unix_now() if self._cause is StartCause.QUEUED else status.held_until
            self._start_by = self._moment(timeouts.start(self._tracked.item.queue), held)
        self._cause = cause
        self._patience.deadline = self._next_limit()

    def _next_limit(self) -> float:
        return min(self._start_by, self._wait_by, self._end_by)

    async def end_it(self) -> None:
        """When its user wants it to stop, or when it would hold its slot for ever."""
        while self._timed_out is None:
            with anyio.CancelScope(deadline=self._next_limit()) as self._patience:
                await self._stop_ignored()
                break
            self._timed_out = self._overdue()
        if self._timed_out is not None:
            said = self._timed_out
            log.warning("run took too long", reason=said.reason, detail=said.detail)
        await insist(
            lambda: self._runner.cancel(self._handle, within_seconds=KILL_AFTER_SECONDS),
            doing="ending the run",
            tracked=self._tracked,
            tools=self._tools,
        )

    async def _stop_ignored(self) -> None:
        """Until a stop was asked for and the run, which the service tells, had its grace."""
        await self._tracked.stop.wait()
        grace = self._tools.stop_grace_seconds
        log.info("stop requested", grace_seconds=grace)
        with anyio.move_on_after(grace):
            if self._tracked.entry.cancelled:  # of this stop the service does not know
                self._tools.warnings.add(self._tracked, stopped_by(self._tracked))
                await insist(
                    lambda: self._tools.runs.ask_to_stop(self._tracked.item.run),
                    doing="asking the run to stop",
                    tracked=self._tracked,
                    tools=self._tools,
                )
            await anyio.sleep_forever()

    def _overdue(self) -> RunEnd | None:
        """How a run ends that passed a limit; None: it passed none after all."""
        now, queue, timeouts = anyio.current_time(), self._tracked.item.queue, self._tools.timeouts
        if self._end_by <= now:
            detail = f"it was not done within {timeouts.run(queue)} after its launch"
            return RunEnd(exit_code=None, reason=Reason.RUN_TIMEOUT, detail=detail)
        said = f"; its backend says: {self._waits_for}" if self._waits_for else ""
        if self._wait_by <= now:
            detail = f"it was held up for longer than {timeouts.wait(self._cause)}{said}"
            return RunEnd(exit_code=None, reason=Reason.START_TIMEOUT, detail=detail)
        if self._start_by <= now:
            detail = f"it was not running within {timeouts.start(queue)} after its launch{said}"
            return RunEnd(exit_code=None, reason=Reason.START_TIMEOUT, detail=detail)
        return None

    def _moment(self, limit: TimeLimit, held_until: float | None = None) -> float:
        """When a limit is over; nobody's clock but the machine's since its start counts."""
        if not limit.seconds:
            return math.inf
        launched = self._tracked.entry.launched
        passed = 0.0 if launched is None else seconds_since(launched)
        if held_until is not None:  # it can only give more time: clocks may differ
            passed = min(passed, max(0.0, unix_now() - held_until))
        settle = min(limit.seconds, self._tools.timeouts.settle_seconds)
        return anyio.current_time() + max(limit.seconds - passed, settle)

    def _judged(self, end: RunEnd) -> RunEnd:
        if self._timed_out is None:
            return end
        return msgspec.structs.replace(
            end, reason=self._timed_out.reason, detail=self._timed_out.detail
        )
