"""Requeue: a preempted item goes back to its queue, never lost and never twice (docs/adr/0010)."""

from collections.abc import Sequence

import msgspec
import structlog

from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.errors import ItemError, Unavailable
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def requeue(
    tracked: Tracked, outcome: Outcome, tools: Tools, *, files: Sequence[str]
) -> Outcome | None:
    """None: it is queued again. Else the outcome to report instead.

    Raises:
        Unavailable: nothing was sent for certain, or sending again does no harm.
    """
    repeatable = await tools.requeues.repeatable()
    if not repeatable:
        if outcome.asked:
            return _unsure(tracked, outcome)
        asked = msgspec.structs.replace(outcome, asked=True)
        await tools.table.move(tracked, Phase.REPORTING, outcome=asked)
    try:
        await tools.requeues.requeue(tracked.item, outcome, files=files)
    except ItemError as error:
        return msgspec.structs.replace(
            outcome, again=False, message=f"{outcome.message}. It was not queued again: {error}"
        )
    except Unavailable:
        if repeatable:
            raise
        return _unsure(tracked, outcome)
    log.info("item queued again", preemptions=tracked.item.spec.resume_count + 1)
    return None


def _unsure(tracked: Tracked, outcome: Outcome) -> Outcome:
    """This service has no way to say it twice, and two runs must not be one."""
    run_id = tracked.item.run_id
    message = (
        f"{outcome.message}. Whether it was queued again is not known, for the answer was lost: "
        f"look for the run {run_id} in the queue, else launch it again with this run_id"
    )
    return msgspec.structs.replace(outcome, again=False, message=message)
