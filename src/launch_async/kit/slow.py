"""What takes long is said while it lasts, not when it is over."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def said_when_slow(
    say: Callable[[], object], *, after_seconds: float
) -> Generator[None, None, None]:
    """Call `say` once if the block still runs after so long."""
    timer = asyncio.get_running_loop().call_later(after_seconds, say)
    try:
        yield
    finally:
        timer.cancel()
