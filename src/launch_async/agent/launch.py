"""Launch: the one effect that must never happen twice. Its intent is in the journal first."""

from collections.abc import Sequence
from functools import partial

import anyio
import structlog

from launch_async.agent.insist import asking_backend, insist, pause_after
from launch_async.agent.prepare import stopped_early, target_of
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Target, Tools
from launch_async.domain.errors import NotBegun, Unavailable
from launch_async.domain.phase import Phase
from launch_async.domain.run import FoundRun, RunHandle, Trace
from launch_async.ports.runner import LaunchOrder, Runner

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def launched_before(tracked: Tracked, tools: Tools) -> RunHandle | None:
    """What an earlier try or life of the agent launched without noting its handle; None: nothing.

    Asked before anything is prepared again: a run that is alive works in what was prepared. A
    backend that does not answer is waited for: unknown is not failed.
    """
    if tracked.entry.phase is not Phase.LAUNCHING:
        return None
    target = target_of(tracked.item, tools)
    found = await insist(
        partial(found_runs, target, tools),
        doing="looking for the run",
        tracked=tracked,
        tools=tools,
    )
    mine = (one for one in found if one.handle.item_id == tracked.item.id)
    run = next(mine, None)
    if run is None or run.trace is Trace.PREPARED:
        return None
    await tools.table.move(tracked, Phase.RUNNING, handle=run.handle)
    return run.handle


async def found_runs(target: Target, tools: Tools) -> Sequence[FoundRun]:
    """What the target's backend has of this agent's runs; who asks at the same time shares a look.

    Raises:
        Unavailable: the backend does not say.
    """
    return await target.looks.get(partial(target.runner.find, tools.identity))


async def launch(tracked: Tracked, order: LaunchOrder, tools: Tools) -> RunHandle:
    """Start the run, or find it when an earlier try or life already did; the runner sees to it.

    Raises:
        ItemError: the backend refused it, or its user asked for a stop meanwhile.
        Unavailable: the backend does not start it, and certainly nothing runs.
    """
    if tracked.stop.is_set():
        raise stopped_early(tracked)
    runner = target_of(tracked.item, tools).runner
    fresh = tracked.entry.phase is Phase.PREPARING
    if fresh:  # before the intent: what is absent starts nothing
        checked = partial(
            insist,
            partial(_check, tracked, runner, tools),
            doing=f"waiting for {runner.name}",
            tracked=tracked,
            tools=tools,
            within_seconds=tools.patience_seconds,
        )
        await tracked.stop.unless_set(checked)
        if tracked.stop.is_set():
            raise stopped_early(tracked)
        await tools.table.move(tracked, Phase.LAUNCHING)
    return await _launch(tracked, order, runner, tools, fresh=fresh)


async def _check(tracked: Tracked, runner: Runner, tools: Tools) -> None:
    with asking_backend(tracked, tools):
        await runner.check()


async def _launch(
    tracked: Tracked, order: LaunchOrder, runner: Runner, tools: Tools, *, fresh: bool
) -> RunHandle:
    """`fresh`: no try before this one can have begun it."""
    deadline = anyio.current_time() + tools.patience_seconds
    said = ""
    while True:
        try:
            with asking_backend(tracked, tools):
                handle = await tracked.stop.unless_set(partial(runner.launch, order))
        except Unavailable as error:
            fresh = fresh and isinstance(error, NotBegun)
            if str(error) != said:
                log.warning("launch not answered, trying again", reason=str(error))
            said = str(error)
            tracked.detail = f"launching: {error}"
            tools.table.hold_up(tracked, held_up=True)
            await pause_after(error, tools)
            # The run may have begun all the same: only a look can tell.
            found = None if fresh else await launched_before(tracked, tools)
            if found is not None:
                return found
            if tracked.stop.is_set():
                raise stopped_early(tracked) from error
            if anyio.current_time() >= deadline:
                raise
        else:
            if handle is None:  # stopped: what has begun all the same is watched to its end
                handle = await launched_before(tracked, tools)
                if handle is None:
                    raise stopped_early(tracked)
                return handle
            await tools.table.move(tracked, Phase.RUNNING, handle=handle)
            return handle
