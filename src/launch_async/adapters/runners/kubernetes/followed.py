"""Following all containers of a run at once, those of pods that come later too."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager

import anyio
import structlog

from launch_async.adapters.runners.kubernetes.logs import Feed, Source, follow, sources
from launch_async.adapters.runners.kubernetes.verdicts import judge
from launch_async.adapters.runners.kubernetes.watches import Station, Watches, now
from launch_async.domain.errors import LaunchError
from launch_async.kit.tail import ByteTail

_LOOK_SECONDS = 2.0
"""Between two looks for containers that have begun, if no watch tells of them."""
_ROOM = 16
"""Pieces that a slow reader leaves waiting; the followers wait too then."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class FollowedLogs:
    """The followers are tasks of `watches`, so that a reader may go away at any time."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches

    async def follow(self, station: Station, item: str, uid: str) -> AsyncGenerator[bytes, None]:
        """Until no container of the run goes on and its object has ended or is gone."""
        send, receive = anyio.create_memory_object_stream[bytes](_ROOM)

        async def feed_all() -> None:
            async with send:
                await self._feed_all(station, item, send.send, lambda: _is_over(station, uid, item))

        scope = self._watches.spawn(feed_all)
        try:
            async with receive:
                async for piece in receive:
                    yield piece
        finally:
            scope.cancel()

    @contextmanager
    def keeping(
        self, station: Station, item: str, *, lines: int
    ) -> Generator[ByteTail, None, None]:
        """What the run printed last and prints while the block lasts."""
        tail = ByteTail()

        async def feed(piece: bytes) -> None:
            tail.feed(piece)

        async def feed_all() -> None:
            await self._feed_all(station, item, feed, lambda: False, lines=lines)

        scope = self._watches.spawn(feed_all)
        try:
            yield tail
        finally:
            scope.cancel()

    async def _feed_all(
        self,
        station: Station,
        item: str,
        feed: Feed,
        is_over: Callable[[], bool],
        *,
        lines: int | None = None,
    ) -> None:
        followed: set[tuple[str, str]] = set()
        going: set[tuple[str, str]] = set()
        several = False

        async def follow_one(source: Source) -> None:
            try:
                await follow(station.cluster.api, source, feed, prefixed=several, lines=lines)
            except (LaunchError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                log.info("a log is not followed", pod=source.pod, why=str(error))
            finally:
                going.discard(source.key)

        with self._watches.follow(item) as bell:
            async with anyio.create_task_group() as tasks:
                while True:
                    found = sources(station.pods.there(item))
                    several = several or len(found) > 1
                    for source in found:
                        if source.key not in followed:
                            followed.add(source.key)
                            going.add(source.key)
                            tasks.start_soon(follow_one, source)
                    if is_over() and not going:
                        return
                    with anyio.move_on_after(_LOOK_SECONDS):
                        await bell.wait()


def _is_over(station: Station, uid: str, item: str) -> bool:
    seen = station.see(uid)
    if seen is None or not seen.there:
        return True
    return judge(seen.launched, station.pods.of(item), now=now()).end is not None
