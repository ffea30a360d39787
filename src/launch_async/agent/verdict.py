"""Verdict: from how a run ended on its backend to how its item ended, in words for its user."""

from collections.abc import Mapping

import anyio
import structlog

from launch_async.agent.insist import insist
from launch_async.agent.prepare import target_of
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.environment import run_secrets
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.ids import RunRef
from launch_async.domain.outcome import SUCCEEDED, Outcome
from launch_async.domain.run import RunEnd, RunHandle
from launch_async.ports.runner import Runner
from launch_async.ports.runs import RunView

LOG_TAIL_LINES = 500
MESSAGE_TAIL_LINES = 20

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def judge(tracked: Tracked, handle: RunHandle, end: RunEnd, tools: Tools) -> Outcome:
    """The outcome. A clean exit counts only with a run: the job must have called `wandb.init`."""
    runner = target_of(tracked.item, tools).runner
    view = await _run_view(tracked, tools, patient=end.clean)
    if end.clean and view is not None:
        return SUCCEEDED
    tail = await _log_tail(tracked, runner, handle, tools)
    if tracked.stop.is_set() and end.reason is not Reason.START_TIMEOUT:
        if view is not None:
            return Outcome(failed=False, message="stopped on request", reason=Reason.STOPPED)
        return _failed("stopped on request before it called wandb.init", Reason.STOPPED, end, tail)
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


def _failed(message: str, reason: Reason, end: RunEnd, tail: tuple[str, ...]) -> Outcome:
    shown = "\n".join(tail[-MESSAGE_TAIL_LINES:])
    return Outcome(
        failed=True,
        message=f"{message}. Last lines of its log:\n{shown}" if tail else f"{message}.",
        stage=Stage.RUN,
        reason=reason,
        exit_code=end.exit_code,
        log_tail=tail,
    )


def _how(end: RunEnd) -> str:
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
    for secret in run_secrets(tracked.item, agent_key=tools.api_key).values():
        tail = tuple(line.replace(secret.reveal(), "***") for line in tail)
    return tail
