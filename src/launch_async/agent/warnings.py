"""Warnings: what an item's user should know before its end, told once and without holding it up."""

from collections import deque

import anyio
import structlog

from launch_async.agent.masks import masked
from launch_async.agent.table import Tracked
from launch_async.domain.errors import LaunchError, Unavailable
from launch_async.domain.item import Item
from launch_async.domain.secret import Secret
from launch_async.kit.changes import Changes
from launch_async.ports.queue import ItemQueue

MAX_PER_ITEM = 20
MAX_WAITING = 1000
"""Warnings that wait for the service; in an outage older ones give way to newer ones."""
MAX_CHARACTERS = 2000

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Warnings:
    """Told by `serve`; what a life did not get to tell, the next one finds out again."""

    def __init__(self, queue: ItemQueue, *, agent_key: Secret[str], retry_seconds: float) -> None:
        self._queue = queue
        self._agent_key = agent_key
        self._retry_seconds = retry_seconds
        self._waiting: deque[tuple[Item, str]] = deque(maxlen=MAX_WAITING)
        self._changed = Changes()

    def add(self, tracked: Tracked, message: str) -> None:
        """Never waits; the same message of an item is told once."""
        text = masked(message, tracked.item, self._agent_key)[:MAX_CHARACTERS]
        if text in tracked.warnings or len(tracked.warnings) >= MAX_PER_ITEM:
            return
        tracked.warnings.append(text)
        log.warning("item warned of", item=tracked.item.id, message=text)
        self._waiting.append((tracked.item, text))
        self._changed.notify()

    async def serve(self) -> None:
        """Until cancelled."""
        while True:
            while not self._waiting:
                await self._changed.wait()
            item, text = self._waiting.popleft()
            try:
                await self._queue.warn(item, text)
            except Unavailable:
                if len(self._waiting) < MAX_WAITING:
                    self._waiting.appendleft((item, text))
                await anyio.sleep(self._retry_seconds)
            except LaunchError as error:
                log.warning("warning not told", item=item.id, reason=str(error))
