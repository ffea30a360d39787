"""What was read a moment ago, so that the next request need not ask for it again.

Every `write` of this process empties it. What another process wrote is seen after a second.
"""

import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

KEPT_SECONDS: Final = 1.0
MAX_KEPT: Final = 10_000

V = TypeVar("V")


class Memory(Generic[V]):
    """Values by name, each for a moment."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, V]] = {}
        self.edition = 0
        """Which write was the last. A value that was read before it is not kept after it."""

    def find(self, name: str) -> V | None:
        """Return what was kept under a name and is fresh."""
        until, value = self._kept.get(name, (0.0, None))
        return value if self._clock() < until else None

    def keep(self, name: str, value: V, *, edition: int) -> None:
        """Keep what was read since `edition` was the edition; call it as soon as it is read."""
        if edition != self.edition:
            return
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[name] = self._clock() + KEPT_SECONDS, value

    def forget(self) -> None:
        """Forget everything: somebody wrote."""
        self.edition += 1
        self._kept.clear()
