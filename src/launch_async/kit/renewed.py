"""A value that expires: fetched anew in time, by one for all who ask."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

from launch_async.kit.shared import Shared

T = TypeVar("T")

FRESH_SHARE = 0.75
"""Of its lifetime, that a value is given out; in the rest it can still be used while a new one is
fetched, or cannot be had."""
RETRY_SECONDS = 30.0
"""Between two tries to replace a value that still holds."""


class Renewed(Generic[T]):
    """Keeps what `fetch` gives, with its lifetime in seconds, for as long as it is good."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[tuple[T, float]]],
        *,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._fetch = fetch
        self._now = now
        self._shared: Shared[T] = Shared()
        self._held: tuple[T] | None = None
        self._renew_at = 0.0
        self._ends_at = 0.0

    async def get(self) -> T:
        """The value; who asks while it is fetched gets the same one, or the same error."""
        held = self._held
        if held is not None and self._now() < self._renew_at:
            return held[0]
        try:
            return await self._shared.get(self._renew)
        except Exception:
            if held is None or self._held is not held or self._now() >= self._ends_at:
                raise
            self._renew_at = min(self._now() + RETRY_SECONDS, self._ends_at)
            return held[0]

    def forget(self, value: T) -> None:
        """Whoever it was meant for refused this value: fetch another one, unless that is done."""
        if self._held == (value,):
            self._held = None

    async def _renew(self) -> T:
        if self._held is not None and self._now() < self._renew_at:
            return self._held[0]  # fetched while this asker waited
        value, lifetime_seconds = await self._fetch()
        now = self._now()
        self._renew_at = now + lifetime_seconds * FRESH_SHARE
        self._ends_at = now + lifetime_seconds
        self._held = (value,)
        return value
