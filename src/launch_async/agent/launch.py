"""Launch: the one effect that must never happen twice. Its intent is in the journal first."""

from launch_async.agent.prepare import target_of
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunHandle
from launch_async.ports.runner import LaunchOrder


async def launched_before(tracked: Tracked, tools: Tools) -> RunHandle | None:
    """What an earlier life of the agent launched without noting its handle; None: nothing.

    Asked before anything is prepared again: a run that is alive works in what was prepared.

    Raises:
        Unavailable: the backend did not answer.
    """
    if tracked.entry.phase is not Phase.LAUNCHING:
        return None
    found = await target_of(tracked.item, tools).runner.find(tools.identity)
    handle = next((handle for handle in found if handle.item_id == tracked.item.id), None)
    if handle is not None:
        await tools.table.move(tracked, Phase.RUNNING, handle=handle)
    return handle


async def launch(tracked: Tracked, order: LaunchOrder, tools: Tools) -> RunHandle:
    """Start the run, or find it when an earlier try or life already did; the runner sees to it.

    Raises:
        ItemError: the backend refused it, or its user asked for a stop meanwhile.
        Unavailable: the backend did not answer.
    """
    if tracked.stop.is_set():
        raise ItemError("stopped before it was launched", reason=Reason.STOPPED, stage=Stage.RUN)
    await tools.table.move(tracked, Phase.LAUNCHING)
    handle = await target_of(tracked.item, tools).runner.launch(order)
    await tools.table.move(tracked, Phase.RUNNING, handle=handle)
    return handle
