"""The life of one item, from its pop to its report. Read this first.

```
claim -> prepare -> launch -> watch -> judge -> report
```

Values go forward. A crash may cut the journey anywhere: the next life enters it again at the phase
that the journal holds, and every stage may be repeated (docs/adr/0002).
"""

import errno

import anyio
import structlog

from launch_async.agent.claim import claim
from launch_async.agent.insist import MAX_PAUSE_SECONDS
from launch_async.agent.launch import launch, launched_before
from launch_async.agent.prepare import prepare
from launch_async.agent.report import report
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.agent.verdict import judge, verdict_on
from launch_async.agent.watch import watch
from launch_async.domain.errors import AgentUnfit, ItemError, Unavailable, gravest
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunHandle

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def travel(tracked: Tracked, tools: Tools) -> None:
    """Take the item to its end. Only `AgentUnfit` and cancellation leave this function.

    A fault of ours does not end an item whose run may be alive: the journey is entered again.
    """
    item = tracked.item
    structlog.contextvars.bind_contextvars(item=item.id, run=item.run_id, queue=item.queue.name)
    pause = tools.retry_seconds
    while True:
        try:
            await _travel(tracked, tools)
        except Exception as error:
            _raise_unfit(error)
            log.exception("journey broke; it is entered again where it was", in_seconds=pause)
        else:
            return
        tracked.detail = "a fault in launch-async, see its log"
        await anyio.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


async def _travel(tracked: Tracked, tools: Tools) -> None:
    if tracked.entry.phase in (Phase.LEASED, Phase.CLAIMING) and not await claim(tracked, tools):
        await tools.table.done(tracked, reason="let_go")
        return
    outcome = tracked.entry.outcome or await _outcome(tracked, tools)
    await report(tracked, outcome, tools)
    await tools.table.done(tracked, reason=outcome.reason or "succeeded")


async def _outcome(tracked: Tracked, tools: Tools) -> Outcome:
    handle = tracked.entry.handle or await launched_before(tracked, tools)
    if handle is None:
        launched = await _launched(tracked, tools)
        if isinstance(launched, Outcome):
            return launched
        handle = launched
    end = await watch(tracked, handle, tools)
    return await judge(tracked, handle, end, tools)


async def _launched(tracked: Tracked, tools: Tools) -> RunHandle | Outcome:
    """The run's handle; the outcome of an item that certainly has no run."""
    try:
        order = await prepare(tracked, tools)
        for warning in order.work.warnings:
            tools.warnings.add(tracked, warning)
        return await launch(tracked, order, tools)
    except Exception as error:
        _raise_unfit(error)
        fault = gravest(error)
        if not isinstance(fault, ItemError | Unavailable):
            log.exception("item broke")
            handle = await launched_before(tracked, tools)
            if handle is not None:
                return handle
        return verdict_on(fault)


def _raise_unfit(error: Exception) -> None:
    """What no other item would survive either is the agent's end, not the item's."""
    fault = gravest(error)
    if isinstance(fault, OSError) and fault.errno in _NO_ROOM:
        msg = (
            f"the agent cannot write to its disk ({fault.strerror}: {fault.filename or 'no file'});"
            " free space and start it again: its items are kept"
        )
        raise AgentUnfit(msg) from error
    if isinstance(fault, AgentUnfit):
        raise fault
