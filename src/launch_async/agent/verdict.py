"""Verdict: from how a run ended on its backend to how its item ended, in words for its user."""

from collections.abc import Callable, Sequence

import anyio
import structlog

from launch_async.agent.bundle import LOG_MARK
from launch_async.agent.insist import insist
from launch_async.agent.masks import masked
from launch_async.agent.prepare import stopped_by, target_of
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.outcome import SUCCEEDED, Outcome
from launch_async.domain.run import RunEnd, RunHandle
from launch_async.ports.runner import Runner
from launch_async.ports.runs import RunView

LOG_TAIL_LINES = 500
MESSAGE_TAIL_LINES = 20

_OUR_LIMITS = frozenset({Reason.START_TIMEOUT, Reason.RUN_TIMEOUT})

_ENDS = {"killed": "was killed", "preempted": "was preempted"}
"""States of runs as ends of a sentence, where the word alone is none."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def judge(tracked: Tracked, handle: RunHandle, end: RunEnd, tools: Tools) -> Outcome:
    """The outcome. A clean exit counts only with a run: the job must have called `wandb.init`.

    Of one that its backend lost the run itself may know how it ended. Only verdicts that need the
    service's word wait for it.
    """
    runner = target_of(tracked.item, tools).runner
    view = word = None
    if end.lost:
        word = await tracked.stop.unless_set(lambda: _last_word(tracked, tools))
    stopped = tracked.stop.is_set() or (word is not None and word.stop_requested)
    cancelled = tracked.entry.cancelled
    if end.clean or (tracked.stop.is_set() and not cancelled) or end.reason is Reason.PREEMPTED:
        view = await _run_view(tracked, tools, patient=end.clean)
    if (end.clean and view is not None) or (word is not None and word.finished):
        return SUCCEEDED
    tail = await _log_tail(tracked, runner, handle, tools)
    if stopped and end.reason not in _OUR_LIMITS:
        return _stopped(tracked, end, view or word, tail)
    if end.reason is Reason.PREEMPTED:
        return _preempted(tracked, end, view, tail, tools)
    if end.clean:
        message = (
            "the job exited with 0 but never called wandb.init, so there is no run. Call "
            "wandb.init() in the job and do not set WANDB_MODE=offline or disabled"
        )
        return _failed(message, Reason.NO_RUN, end, tail)
    if word is not None:
        return _by_its_run(word, end, tail)
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
    if view is not None and view.finished:
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


def _by_its_run(word: RunView, end: RunEnd, tail: tuple[str, ...]) -> Outcome:
    """Of a run that ended badly while its backend did not see how."""
    lost = f" ({end.detail})" if end.detail else ""
    message = (
        f"its W&B run says that it {_ENDS.get(word.state, word.state)}; its backend lost it{lost}"
    )
    reason = Reason.EXIT_CODE if word.state == "failed" else Reason.VANISHED
    return _failed(message, reason, end, tail)


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
    """The run, once the service shows that it has begun."""
    pauses = tools.run_look_up_pauses
    return await _view_that(
        lambda view: view.state != "pending", pauses if patient else pauses[:1], tracked, tools
    )


async def _last_word(tracked: Tracked, tools: Tools) -> RunView | None:
    """The run, once the service tells of its end; None: it does not, or not in time.

    An item may go on with a run of an earlier one, whose end would be no news.
    """
    tracked.detail = "its backend lost it: asking its run how it ended"
    fresh = tracked.item.spec.run_id is None

    def is_told(view: RunView) -> bool:
        tracked.run_lived |= view.alive
        return view.ended and (fresh or tracked.run_lived)

    with anyio.move_on_after(tools.run_word_seconds):
        return await _view_that(is_told, tools.run_look_up_pauses, tracked, tools)
    return None


async def _view_that(
    tells: Callable[[RunView], bool], pauses: Sequence[float], tracked: Tracked, tools: Tools
) -> RunView | None:
    """What the service says of the run as soon as it `tells` what is wanted."""
    for pause in pauses:
        await anyio.sleep(pause)
        view = await insist(
            lambda: tools.run_looks.look_up(tracked.item.run, tools.runs),
            doing="waiting for the run service",
            tracked=tracked,
            tools=tools,
        )
        if view is not None and tells(view):
            return view
    return None


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
