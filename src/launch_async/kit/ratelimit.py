"""A token bucket that keeps callers to a rate, and to what a service asks of them meanwhile."""

import anyio


class Throttled(Exception):
    """The next token is further away than a caller waits."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no call before {seconds:.1f} s from now")
        self.seconds = seconds


class TokenBucket:
    """`burst` calls at once, then `per_second`; first come, first served.

    Kept as the one moment at which the bucket will be full again (the "generic cell rate
    algorithm"): no task and no timer refills it.
    """

    def __init__(self, *, per_second: float, burst: int, max_wait_seconds: float) -> None:
        self._interval = 1 / per_second
        self._capacity = burst * self._interval
        self._max_wait_seconds = max_wait_seconds
        self._full_at = 0.0
        self._held_until = 0.0

    async def take(self) -> None:
        """Wait for a token.

        Raises:
            Throttled: it would take longer than `max_wait_seconds`.
        """
        deadline = anyio.current_time() + self._max_wait_seconds
        while True:
            known_hold = self._held_until
            await anyio.sleep(self._reserve(deadline))
            if self._held_until == known_hold:
                return

    def hold(self, seconds: float) -> None:
        """Give no token for so long, also to those who wait already, and no burst after it."""
        until = anyio.current_time() + seconds
        self._held_until = max(self._held_until, until)
        self._full_at = max(self._full_at, until + self._capacity - self._interval)

    def keep_to(self, remaining: int) -> None:
        """Have no more than `remaining` tokens now."""
        emptied = anyio.current_time() + self._capacity - remaining * self._interval
        self._full_at = max(self._full_at, emptied)

    def _reserve(self, deadline: float) -> float:
        now = anyio.current_time()
        full_at = max(self._full_at, now) + self._interval
        moment = max(full_at - self._capacity, self._held_until)
        if moment > max(deadline, now):
            raise Throttled(moment - now)
        self._full_at = full_at
        return max(0.0, moment - now)
