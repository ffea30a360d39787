"""Tells whoever follows a key that it should look: one ear for many who wait.

A ring says "look"; it is never a verdict. Rings before a wait are not lost.
"""

from collections import defaultdict
from collections.abc import Collection, Generator
from contextlib import contextmanager

import anyio


class Bell:
    """Rung when its owner should look."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._rung.set()

    async def wait(self) -> None:
        """Return when rung since the last wait."""
        await self._rung.wait()
        self._rung = anyio.Event()


class Bells:
    """Those of all who follow something now."""

    def __init__(self) -> None:
        self._bells: defaultdict[str, set[Bell]] = defaultdict(set)

    @contextmanager
    def follow(self, key: str) -> Generator[Bell, None, None]:
        """A bell for one key, for as long as the block lasts."""
        bell = Bell()
        self._bells[key].add(bell)
        try:
            yield bell
        finally:
            self._bells[key].discard(bell)
            if not self._bells[key]:
                del self._bells[key]

    def ring(self, key: str) -> None:
        """Wake all who follow this key."""
        for bell in self._bells.get(key, ()):
            bell.ring()

    def ring_all(self) -> None:
        """Wake everybody."""
        for key in self.keys():
            self.ring(key)

    def keys(self) -> Collection[str]:
        """What is followed now."""
        return tuple(self._bells)

    def __contains__(self, key: object) -> bool:
        return key in self._bells
