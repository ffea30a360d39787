"""Runs code as processes on this machine; they outlive the agent and are found again.

Each run has a shim between the agent and the job (`shim.py`) that writes down how the job ended,
whether or not an agent is there. The agent waits for the shim's end by pidfd and reads the record.
"""

import json
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async.adapters.runners.process import shim
from launch_async.adapters.runners.process.environment import PASSED_ON, job_environment
from launch_async.adapters.runners.process.records import (
    Facts,
    Order,
    Record,
    Started,
    orders,
)
from launch_async.adapters.runners.process.spawn import spawn_shim
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.run import FoundRun, RunEnd, RunHandle, RunState, RunStatus, Trace
from launch_async.kit.procs import boot_id, signal_group, wait_for_exit
from launch_async.kit.tail import last_lines, read_on
from launch_async.ports.runner import CodeWork, LaunchOrder

log = structlog.get_logger()

T = TypeVar("T")

_KILL_SECONDS = 10.0
"""How long a killed process may take to be gone; longer means that it hangs in the kernel."""
_SETTLE_SECONDS = 0.05
_LOG_SECONDS = 0.5
"""Between two looks of one who follows a log."""
LOG_BYTES = 256 * 1024 * 1024
"""Disk that one run's log may take; the older half goes when it takes more."""
_ATTEMPTS = 20
_STARTS = 16


class ProcessRunner:
    """Implements `ports.runner.Runner` for code on this machine."""

    name = "process"

    def __init__(
        self,
        state_dir: Path,
        *,
        start_timeout_seconds: float = 60.0,
        passed_on: Sequence[str] = PASSED_ON,
        log_bytes: int = LOG_BYTES,
    ) -> None:
        self._runs = state_dir.absolute() / "runs"
        self._start_timeout_seconds = start_timeout_seconds
        self._passed_on = tuple(passed_on)
        self._log_bytes = log_bytes
        self._shims: dict[str, Popen[bytes]] = {}
        self._threads = anyio.CapacityLimiter(_STARTS)

    async def check(self) -> None:
        """Whether the folder for runs can be written to."""
        try:
            await self._in_thread(partial(self._runs.mkdir, 0o700, parents=True, exist_ok=True))
        except OSError as error:
            raise Unavailable(
                f"The folder {self._runs} cannot be used: {error.strerror}. Set another state_dir."
            ) from error

    async def launch(self, order: LaunchOrder) -> RunHandle:
        """Start the run, or find it; a run that certainly never began is begun again."""
        if not isinstance(order.work, CodeWork):
            raise ItemError(
                f"local-process queues run code; {order.work.image} is an image:"
                " use a local-container queue.",
                reason=Reason.TARGET_UNSUPPORTED,
            )
        payload = self._payload(order, order.work)
        record = Record(self._runs, order.run.run_id)
        started_here, facts = await self._begin(record, order, payload)
        if facts.never_ran:
            raise ItemError(
                f"The run could not be started on this machine: {await self._shim_words(record)}",
                reason=Reason.LAUNCH_FAILED,
                stage=Stage.RUN,
            )
        who = {"item": order.item_id, "run": order.run.run_id, "queue": order.queue.name}
        pid = facts.started.job_pid if facts.started else None
        log.info("run started" if started_here else "run found", pid=pid, **who)
        return _handle(order.run.run_id, order.item_id, facts)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        """RUNNING, then the end; waits by pidfd, first for the shim, then for a job without one."""
        record = Record(self._runs, handle.run_id)
        facts = await self._settled(record, handle.item_id)
        if facts.shim is not None and facts.shim.alive:
            if facts.ended is None:
                yield RunStatus(state=RunState.RUNNING)
            await wait_for_exit(facts.shim.shim_pid, ticks=facts.shim.shim_ticks)
        self._forget_shim(handle.run_id)
        # Read again even if the shim was gone at once: its last words may be newer than `facts`.
        facts = await self._in_thread(partial(record.read, handle.item_id))
        started = facts.started
        if facts.ended is None and started is not None and started.job_alive:
            log.warning("run lost its shim", run=handle.run_id, pid=started.job_pid)
            yield RunStatus(state=RunState.RUNNING, detail="its shim is gone; the job runs on")
            await wait_for_exit(started.job_pid, ticks=started.job_ticks)
        end = _end(facts)
        log.info("run ended", run=handle.run_id, exit_code=end.exit_code, detail=end.detail)
        yield RunStatus(state=RunState.ENDED, end=end)

    async def cancel(self, handle: RunHandle, *, within_seconds: float) -> None:
        """SIGTERM to all of the job's processes, SIGKILL to what is left after `within_seconds`."""
        record = Record(self._runs, handle.run_id)
        facts = await self._settled(record, handle.item_id)
        started = facts.started
        if started is None or facts.ended is not None:
            return
        if started.job_alive:
            log.info("run is told to stop", run=handle.run_id, within_seconds=within_seconds)
            signal_group(started.job_pid, signal.SIGTERM)
            with anyio.move_on_after(within_seconds):
                await wait_for_exit(started.job_pid, ticks=started.job_ticks)
        await self._kill(handle.run_id, started)

    async def log_tail(self, handle: RunHandle, *, lines: int) -> tuple[str, ...]:
        """The last lines of stdout and stderr, as they came."""
        output = Record(self._runs, handle.run_id).output
        return await self._in_thread(partial(last_lines, output, lines=lines))

    async def logs(self, handle: RunHandle) -> AsyncGenerator[bytes, None]:
        """Both streams as they came; what is over the log's limit on disk is gone."""
        record = Record(self._runs, handle.run_id)
        position = 0
        while True:
            facts = await self._in_thread(partial(record.read, handle.item_id))
            if facts.order is None:
                return
            while True:
                piece, position = await self._in_thread(partial(read_on, record.output, position))
                if not piece:
                    break
                yield piece
            if facts.trace is not Trace.ALIVE:
                return
            with anyio.move_on_after(_LOG_SECONDS):  # files do not say that they grow
                await _wait_for_end(facts)

    async def find(self, identity: str) -> Sequence[FoundRun]:
        """Runs of `identity`, by their records."""
        return await self._in_thread(partial(self._find, identity))

    async def remove(self, handle: RunHandle) -> None:
        """Delete the run's folder, code and log included; a run that still runs is killed first."""
        await self.cancel(handle, within_seconds=0)
        record = Record(self._runs, handle.run_id)
        facts = await self._in_thread(partial(record.read, handle.item_id))
        if facts.order is not None:  # else gone already, or the run is another item's now
            await self._in_thread(record.delete)
        self._forget_shim(handle.run_id)

    async def serve(self) -> None:
        """Nothing runs in the background: the kernel tells each watch."""
        await anyio.sleep_forever()

    async def close(self) -> None:
        """Reap the shims that have ended; the others go on without the agent."""
        for run_id, process in tuple(self._shims.items()):
            self._forget_shim(run_id)
            process.returncode = process.poll() or 0  # else Popen complains that it still runs

    def _payload(self, order: LaunchOrder, work: CodeWork) -> bytes:
        argv = (*work.entrypoint, *order.args)
        if not argv:
            raise ItemError(
                "The job names no program: give it an entry point.", reason=Reason.JOB_INVALID
            )
        environment = job_environment(order, work, passed_on=self._passed_on)
        if any("\0" in text for text in (*argv, *environment, *environment.values())):
            raise ItemError(
                "An argument or environment variable holds a NUL character, which no program"
                " can be given: remove it.",
                reason=Reason.SPEC_INVALID,
            )
        ordered = {
            "argv": argv,
            "cwd": str(work.directory),
            "environment": environment,
            "log_bytes": self._log_bytes,
        }
        return json.dumps(ordered).encode()

    async def _begin(
        self, record: Record, order: LaunchOrder, payload: bytes
    ) -> tuple[bool, Facts]:
        """Whether this call started the run, and the facts after it or somebody else did."""
        for _ in range(_ATTEMPTS):
            started_here = await self._in_thread(
                partial(self._start, record, order, payload), abandon=False
            )
            facts = await self._settled(record)
            if started_here:
                return True, facts
            if facts.order is not None and facts.order.item_id != order.item_id:
                _refuse_if_running(facts)
            elif not facts.never_ran:
                return False, facts
            # Somebody held the lock, but only to look, or has just let go of it.
        raise Unavailable(f"Somebody else keeps the record in {record.folder} locked.")

    def _start(self, record: Record, order: LaunchOrder, payload: bytes) -> bool:
        """Start a shim, unless this item's run has begun already. In a worker thread."""
        with record.lock() as descriptor:
            if descriptor is None:
                return False
            facts = record.read()
            if facts.order is not None and facts.order.item_id != order.item_id:
                _refuse_if_running(msgspec.structs.replace(facts, locked=False))  # by us
                record.forget()  # the same run, queued anew
            elif facts.shim is not None:
                return False
            run_id = order.run.run_id
            asked = Order(
                identity=order.identity,
                item_id=order.item_id,
                run_id=run_id,
                queue=str(order.queue),
                origin=order.origin,
            )
            record.write_order(asked)
            self._forget_shim(run_id)
            self._shims[run_id] = spawn_shim(
                record.folder, payload, descriptor, within_seconds=self._start_timeout_seconds
            )
            return True

    async def _settled(self, record: Record, item_id: ItemId | None = None) -> Facts:
        """The facts, once a shim that is just beginning has got somewhere (some milliseconds)."""
        with anyio.move_on_after(self._start_timeout_seconds):
            while True:
                facts = await self._in_thread(partial(record.read, item_id))
                if not facts.locked or facts.started or facts.ended:
                    return facts
                # Another life's shim, or another process's launch: no event of ours tells.
                await anyio.sleep(_SETTLE_SECONDS)
        raise Unavailable(f"The shim in {record.folder} does not begin; the machine may be stuck.")

    async def _shim_words(self, record: Record) -> str:
        words = await self._in_thread(partial(last_lines, record.folder / "shim.log", lines=1))
        return words[0] if words else "its shim ended without a word"

    async def _kill(self, run_id: str, started: Started) -> None:
        with anyio.move_on_after(_KILL_SECONDS + shim.ORPHAN_GRACE_SECONDS) as patience:
            if started.group_may_live:
                signal_group(started.job_pid, signal.SIGKILL)
            if started.job_alive:
                await wait_for_exit(started.job_pid, ticks=started.job_ticks)
            if started.alive:
                await wait_for_exit(started.shim_pid, ticks=started.shim_ticks)
        self._forget_shim(run_id)
        if patience.cancelled_caught:
            raise Unavailable(
                f"Process {started.job_pid} does not end after SIGKILL; it hangs in the kernel."
            )

    def _find(self, identity: str) -> tuple[FoundRun, ...]:
        mine = (
            (order, record.read())
            for record, order in orders(self._runs)
            if order.identity == identity
        )
        return tuple(
            FoundRun(
                handle=_handle(order.run_id, order.item_id, facts),
                trace=facts.trace,
                origin=order.origin,
            )
            for order, facts in mine
        )

    def _forget_shim(self, run_id: str) -> None:
        process = self._shims.get(run_id)
        if process is not None and process.poll() is not None:
            del self._shims[run_id]

    async def _in_thread(self, function: Callable[[], T], *, abandon: bool = True) -> T:
        return await anyio.to_thread.run_sync(
            function, limiter=self._threads, abandon_on_cancel=abandon
        )


async def _wait_for_end(facts: Facts) -> None:
    if facts.shim is not None and facts.shim.alive:
        await wait_for_exit(facts.shim.shim_pid, ticks=facts.shim.shim_ticks)
    elif facts.started is not None:
        await wait_for_exit(facts.started.job_pid, ticks=facts.started.job_ticks)
    else:
        await anyio.sleep(_SETTLE_SECONDS)


def _refuse_if_running(facts: Facts) -> None:
    # A job that lost its shim, and with it the lock, may run all the same.
    alive = facts.locked or (facts.started is not None and facts.started.job_alive)
    if facts.order is not None and alive:
        raise ItemError(
            f"Run {facts.order.run_id} still runs for another item, {facts.order.item_id}:"
            " stop it, or give this item another run id.",
            reason=Reason.LAUNCH_FAILED,
            stage=Stage.RUN,
        )


def _handle(run_id: RunId, item_id: ItemId, facts: Facts) -> RunHandle:
    started = facts.started
    pids = {} if started is None else {"pid": started.job_pid, "shim_pid": started.shim_pid}
    return RunHandle(backend=ProcessRunner.name, run_id=run_id, item_id=item_id, data=pids)


def _end(facts: Facts) -> RunEnd:
    ended = facts.ended
    if ended is None:
        why = _why_vanished(facts)
        return RunEnd(exit_code=None, reason=Reason.VANISHED, lost=True, detail=why)
    if ended.error:
        return RunEnd(
            exit_code=ended.exit_code,
            reason=Reason.LAUNCH_FAILED,
            detail=f"The program could not be started: {ended.error}.",
        )
    if ended.signal is not None:
        return RunEnd(
            exit_code=None,
            signal=ended.signal,
            reason=Reason.KILLED,
            detail=f"killed by {_signal_name(ended.signal)}",
        )
    return RunEnd(exit_code=ended.exit_code)


def _why_vanished(facts: Facts) -> str:
    if facts.order is None:
        return "no record of this run is left on this machine"
    if facts.shim is None:
        return "the run was ordered but never began"
    if facts.shim.boot_id != boot_id():
        return "the machine restarted while it ran"
    return "the process and its shim were killed, so nobody knows how it ended"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no name
