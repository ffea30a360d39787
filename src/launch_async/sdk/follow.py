"""Follows one item from its queue to the end of its run."""

from collections.abc import AsyncGenerator

import anyio
import msgspec
import structlog

from launch_async.domain.errors import Unavailable
from launch_async.sdk.client import ItemStatus, LaunchClient, RunStatus

log: structlog.stdlib.BoundLogger = structlog.get_logger()

GONE = ItemStatus(state="STOPPED", message="the item was removed from its queue")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at one moment."""

    item: ItemStatus
    run: RunStatus | None = None

    @property
    def word(self) -> str:
        """Where the item is, in one word for people."""
        match self.item.state:
            case "PENDING" | "LEASED":
                return "queued"
            case "CLAIMED":
                return "running" if self.run is not None else "building"
            case state:
                return state.lower()


async def follow(
    client: LaunchClient, *, queue: str, item_id: str, project: str, interval_seconds: float
) -> AsyncGenerator[Progress, None]:
    """Progress every interval; the last one's item has ended. An outage is waited out."""
    last: Progress | None = None
    while True:
        try:
            last = await _look(client, queue=queue, item_id=item_id, project=project)
        except Unavailable:
            log.warning("the service does not answer")
        if last is not None:
            yield last
            if last.item.ended:
                return
        await anyio.sleep(interval_seconds)


async def _look(client: LaunchClient, *, queue: str, item_id: str, project: str) -> Progress:
    item = await client.item(queue, item_id)
    if item is None:
        return Progress(item=GONE)
    run = await client.run(project, item.run_id) if item.run_id else None
    return Progress(item=item, run=run)
