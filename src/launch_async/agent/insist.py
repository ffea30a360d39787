"""Insist: what must be known or told in the end is asked again until there is an answer."""

import math
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import anyio
import structlog

from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.errors import Unavailable
from launch_async.kit.slow import said_when_slow

MAX_PAUSE_SECONDS = 60.0
"""However long a service asks us to wait: a wrong Retry-After must not stop an item or a queue
for a day."""

SLOW_SECONDS = 1.0
"""After which a backend that is asked to begin a run holds up only items of the same queue."""

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def insist(
    attempt: Callable[[], Awaitable[T]],
    *,
    doing: str,
    tracked: Tracked,
    tools: Tools,
    within_seconds: float = math.inf,
) -> T:
    """What `attempt` gives; an outage is waited out and logged once.

    Raises:
        Unavailable: still no answer after `within_seconds`.
    """
    limited = within_seconds < math.inf
    deadline = anyio.current_time() + within_seconds if limited else math.inf
    sick = False
    while True:
        try:
            answer = await attempt()
        except Unavailable as error:
            if anyio.current_time() >= deadline:
                raise
            if not sick:
                log.warning("no answer, trying again", doing=doing, reason=str(error))
            sick = True
            tracked.detail = f"{doing}: {error}"
            tools.table.hold_up(tracked, held_up=True)
            await pause_after(error, tools)
        else:
            if sick:
                log.info("answered again", doing=doing)
                tools.table.hold_up(tracked, held_up=False)
            return answer


@contextmanager
def asking_backend(tracked: Tracked, tools: Tools) -> Generator[None, None, None]:
    """Around a call to the item's backend: while one takes long, nobody else waits with it."""

    def slow() -> None:
        tools.table.hold_up(tracked, held_up=True)

    with said_when_slow(slow, after_seconds=SLOW_SECONDS):
        yield
    tools.table.hold_up(tracked, held_up=False)


async def pause_after(error: Unavailable, tools: Tools) -> None:
    """Sleep for as long as the service asked, within reason, else for the usual pause."""
    await anyio.sleep(pause_seconds(error, tools) * random.uniform(0.8, 1.2))  # noqa: S311 - jitter


def pause_seconds(error: Unavailable, tools: Tools) -> float:
    """How long to wait after this error, before jitter."""
    return min(error.retry_after_seconds or tools.retry_seconds, MAX_PAUSE_SECONDS)
