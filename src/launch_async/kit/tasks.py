"""Small helpers around task groups."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def unless_set(event: anyio.Event, work: Callable[[], Awaitable[T]]) -> T | None:
    """What `work` gives; None when the event is set first, and `work` is cancelled then.

    Errors of `work` come as they are, not in a group.
    """
    result: T | None = None
    fault: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_set, event, group.cancel_scope, name="unless set")
        try:
            result = await work()
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the group
            fault = error
        group.cancel_scope.cancel()
    if fault is not None:
        raise fault
    return result


async def _cancel_when_set(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
