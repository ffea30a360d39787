"""Logs of open items' runs and builds, for people: the journeys know nothing of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import anyio.to_thread

from launch_async.agent.table import Table, Tracked
from launch_async.agent.tools import Tools
from launch_async.kit.tail import last_lines
from launch_async.ports.runner import Runner


async def log_tail(tools: Tools, item_id: str, *, lines: int) -> tuple[str, ...]:
    """The last lines, of its image's build until it has a run; () for an item that is not open."""
    tracked = tools.table.get(item_id)
    if tracked is None:
        return ()
    if tracked.entry.handle is None:
        look = partial(last_lines, lines=lines)
        printed = tracked.build_log
        return () if printed is None else await anyio.to_thread.run_sync(look, printed)
    return await _runner(tools, tracked).log_tail(tracked.entry.handle, lines=lines)


async def follow_log(tools: Tools, item_id: str) -> AsyncGenerator[bytes, None]:
    """What the item's run prints, to its end; waits for the run while the item is open."""
    tracked = tools.table.get(item_id)
    if tracked is None:
        return
    while tracked.entry.handle is None:
        if not _is_open(tools.table, tracked):
            return
        await tools.table.changed.wait()
    async with aclosing(_runner(tools, tracked).logs(tracked.entry.handle)) as pieces:
        async for piece in pieces:
            yield piece


def _is_open(table: Table, tracked: Tracked) -> bool:
    return table.get(tracked.item.id) is tracked


def _runner(tools: Tools, tracked: Tracked) -> Runner:
    return tools.targets[tracked.item.spec.resource].runner
