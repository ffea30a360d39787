"""A signal that is given once, and that cuts short what should not go on after it."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


class Latch:
    """An event that needs no task of its own to end what runs under it."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()

    def is_set(self) -> bool:
        """Whether the signal was given."""
        return self._event.is_set()

    def set(self) -> None:
        """Give it; again is no harm."""
        self._event.set()
        for scope in self._scopes:
            scope.cancel()

    async def wait(self) -> None:
        """Until it is given."""
        await self._event.wait()

    async def unless_set(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """What `work` gives; None when the signal came first, and `work` was cancelled."""
        with anyio.CancelScope() as scope:
            if self.is_set():
                scope.cancel()
            self._scopes.add(scope)
            try:
                return await work()
            finally:
                self._scopes.discard(scope)
        return None
