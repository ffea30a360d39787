"""The life of one item, from its pop to its report. Read this first.

```
claim -> prepare -> launch -> watch -> judge -> report
```

Values go forward. A crash may cut the journey anywhere: the next life enters it again at the phase
that the journal holds, and every stage may be repeated (docs/adr/0002).
"""

import structlog

from launch_async.agent.claim import claim
from launch_async.agent.launch import launch, launched_before
from launch_async.agent.prepare import prepare
from launch_async.agent.report import report
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.agent.verdict import judge, verdict_on
from launch_async.agent.watch import watch
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def travel(tracked: Tracked, tools: Tools) -> None:
    """Take the item to its end. Only `AgentUnfit` and cancellation leave this function."""
    item = tracked.item
    structlog.contextvars.bind_contextvars(item=item.id, run=item.run_id, queue=item.queue.name)
    if tracked.entry.phase in (Phase.LEASED, Phase.CLAIMING) and not await claim(tracked, tools):
        await tools.table.done(tracked, reason="let_go")
        return
    outcome = tracked.entry.outcome or await _outcome(tracked, tools)
    await report(tracked, outcome, tools)
    await tools.table.done(tracked, reason=outcome.reason or "succeeded")


async def _outcome(tracked: Tracked, tools: Tools) -> Outcome:
    try:
        handle = tracked.entry.handle or await launched_before(tracked, tools)
        if handle is None:
            order = await prepare(tracked, tools)
            handle = await launch(tracked, order, tools)
        end = await watch(tracked, handle, tools)
        return await judge(tracked, handle, end, tools)
    except (ItemError, Unavailable) as error:
        return verdict_on(error)
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        log.exception("journey broke")
        message = f"a fault in launch-async ended this item: {type(error).__name__}; see its log"
        return Outcome(failed=True, message=message, reason=Reason.INTERNAL)
