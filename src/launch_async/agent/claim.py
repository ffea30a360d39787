"""Claim: the ack that makes a leased item ours, with its run id fixed before it is sent."""

import structlog

from launch_async.agent.insist import insist
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.phase import Phase

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def claim(tracked: Tracked, tools: Tools) -> bool:
    """Whether the item is ours now; False: let it go, somebody else has it or it was cancelled.

    An ack whose answer was lost may have counted, so it is repeated until there is an answer; the
    service takes the same run id twice (docs/adr/0002).
    """
    item = tracked.item
    if tools.table.busy(tracked):
        log.info("run id in use here: the item goes back with its lease")
        return False
    await tools.table.move(tracked, Phase.CLAIMING)
    claimed = await insist(
        lambda: tools.queue.ack(item),
        doing="claiming",
        tracked=tracked,
        tools=tools,
    )
    if claimed:
        await tools.table.move(tracked, Phase.PREPARING)
    return claimed
