"""Verdict: from how a run ended on its backend to how its item ended, in words for its user."""

from collections.abc import Mapping

import anyio
import structlog

from launch_async.agent.bundle import LOG_MARK
from launch_async.agent.insist import insist
from launch_async.agent.masks import masked
from launch_async.agent.prepare import stopped_by, target_of
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.ids import RunRef
from launch_async.domain.outcome import SUCCEEDED, Outcome
from launch_async.domain.run import RunEnd, RunHandle
from launch_async.ports.runner import Runner
from launch_async.ports.runs import RunView

LOG_TAIL_LINES = 500
MESSAGE_TAIL_LINES = 20

_OUR_LIMITS = frozenset({Reason.START_TIMEOUT, Reason.RUN_TIMEOUT})

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def judge(tracked: Tracked, handle: RunHandle, end: RunEnd, tools: Tools) -> Outcome:
    """The outcome. A clean exit counts only with a run: the job must have called `wandb.init`.

    Only verdicts that need the service's word wait for it.
    """
    runner = target_of(tracked.item, tools).runner
    view = None
    cancelled = tracked.entry.cancelled
    if end.clean or (tracked.stop.is_set() and not cancelled) or end.reason is Reason.PREEMPTED:
        view = await _run_view(tracked, tools, patient=end.clean)
    if end.clean and view is not None:
        return SUCCEEDED
    tail = await _log_tail(tracked, runner, handle, tools)
    if tracked.stop.is_set() and end.reason not in _OUR_LIMITS:
        return _stopped(tracked, end, view, tail)
    if end.reason is Reason.PREEMPTED:
        return _preempted(tracked, end, view, tail, tools)
    if end.clean:
        message = (
            "the job exited with 0 but never called wandb.init, so there is no run. Call "
            "wandb.init() in the job and do not set WANDB_MODE=offline or disabled"
        )
        return _failed(message, Reason.NO_RUN, end, tail)
    return _failed(_how(end), end.reason or Reason.EXIT_CODE, end, tail)


def verdict_on(error: Exception) -> Outcome:
    """The outcome of an item that could not be launched."""
    match error:
        case ItemError():
            return Outcome(failed=True, message=str(error), stage=error.stage, reason=error.reason)
        case Unavailable():
            return Outcome(
                failed=True,
                message=f"{error}. Launch the item again when it is back",
                stage=Stage.AGENT,
                reason=Reason.BACKEND_UNAVAILABLE,
            )
        case _:
            name = type(error).__name__
            message = f"a fault in launch-async ended this item: {name}; see its log"
            return Outcome(failed=True, message=message, stage=Stage.AGENT, reason=Reason.INTERNAL)


def _stopped(tracked: Tracked, end: RunEnd, view: RunView | None, tail: tuple[str, ...]) -> Outcome:
    said = stopped_by(tracked)
    if tracked.entry.cancelled:  # its run's user did not ask for it, and shall read who did
        return _failed(said, Reason.STOPPED, end, tail)
    if view is not None:  # the item follows its run
        return Outcome(failed=False, message=said, reason=Reason.STOPPED)
    return _failed(f"{said} before it called wandb.init", Reason.STOPPED, end, tail)


def _preempted(
    tracked: Tracked, end: RunEnd, view: RunView | None, tail: tuple[str, ...], tools: Tools
) -> Outcome:
    if view is not None and view.state == "finished":
        return SUCCEEDED
    before = tracked.item.spec.resume_count
    said = f" ({end.detail})" if end.detail else ""
    if before >= tools.item_retries:
        message = (
            f"its backend took the machine away{said}, and it was queued again {before} times "
            "already, which is all that `agent.item_retries` allows"
        )
        return _failed(message, Reason.PREEMPTED, end, tail)
    return Outcome(
        failed=True,
        message=f"its backend took the machine away{said}: queued again to go on with the same run"
        f" ({before + 1} of {tools.item_retries})",
        reason=Reason.PREEMPTED,
        exit_code=end.exit_code,
        signal=end.signal,
        again=True,
        log_tail=tail,
    )


def _failed(message: str, reason: Reason, end: RunEnd, tail: tuple[str, ...]) -> Outcome:
    shown = "\n".join(tail[-MESSAGE_TAIL_LINES:])
    return Outcome(
        failed=True,
        message=f"{message}{LOG_MARK}\n{shown}" if tail else f"{message}.",
        stage=Stage.RUN,
        reason=reason,
        exit_code=end.exit_code,
        signal=end.signal,
        log_tail=tail,
    )


def _how(end: RunEnd) -> str:
    if end.reason in _OUR_LIMITS:
        return f"the run was ended: {end.detail}"
    said = f" ({end.detail})" if end.detail else ""
    if end.exit_code is not None:
        return f"the job exited with code {end.exit_code}{said}"
    if end.signal is not None:
        return f"the job was ended by signal {end.signal}{said}"
    return f"the job ended{said}" if said else "the job ended and nobody knows how"


async def _run_view(tracked: Tracked, tools: Tools, *, patient: bool) -> RunView | None:
    run = tracked.item.run
    pauses = tools.run_look_up_pauses
    for pause in pauses if patient else pauses[:1]:
        await anyio.sleep(pause)
        view = (await _look_up(tracked, tools)).get(run)
        if view is not None and view.state != "pending":
            return view
    return None


async def _look_up(tracked: Tracked, tools: Tools) -> Mapping[RunRef, RunView]:
    run = tracked.item.run
    return await insist(
        lambda: tools.runs.look_up([run]),
        doing="waiting for the run service",
        tracked=tracked,
        tools=tools,
    )


async def _log_tail(
    tracked: Tracked, runner: Runner, handle: RunHandle, tools: Tools
) -> tuple[str, ...]:
    """What the run printed last, its keys masked; a verdict does not wait for it."""
    try:
        tail = await runner.log_tail(handle, lines=LOG_TAIL_LINES)
    except (ItemError, Unavailable, OSError) as error:
        log.warning("log cannot be read", reason=str(error))
        return ()
    return tuple(masked(line, tracked.item, tools.api_key) for line in tail)
