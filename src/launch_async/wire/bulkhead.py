"""A bulkhead: places, a token bucket, a breaker and counters for one kind of calls to one backend.

```
call --> breaker closed? --> place --> token --> the request --> counted, breaker told
             | no              (a trial of an open breaker needs no place:
             v                  hanging calls may hold them all)
        Unavailable, with how long to wait
```

It never judges an item: what it raises is an outage like any other.
"""

import math
from collections import Counter
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager, nullcontext

import anyio
import structlog

from launch_async.domain.errors import Unavailable
from launch_async.kit.breaker import Breaker, BreakerState
from launch_async.kit.ratelimit import Throttled, TokenBucket
from launch_async.ports.backends import BackendView

FIRST_HOLD_SECONDS = 1.0
MAX_HOLD_SECONDS = 30.0
"""Of a 429 that names no time: the first, and the longest to which they double."""
MAX_ASKED_SECONDS = 300.0
"""The longest that a service's own wish keeps calls back; a longer one is tried again by then."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Bulkhead:
    """Without `bucket` no rate, without `breaker` no breaker."""

    def __init__(
        self,
        name: str,
        *,
        places: int,
        bucket: TokenBucket | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self.name = name
        self._places = anyio.CapacityLimiter(places)
        self._bucket = bucket
        self._breaker = breaker
        self._requests: Counter[tuple[str, str]] = Counter()
        self._retries = 0
        self._throttled = 0
        self._throttled_in_a_row = 0
        self._refused = 0
        self._wait_seconds = 0.0
        self._answered_at = -math.inf
        self._last_failure = ""

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None, None]:
        """Room for one request.

        Raises:
            Unavailable: the breaker is open, or the backend asked to be left alone for long.
        """
        began = anyio.current_time()
        trial = self.admit()
        async with nullcontext() if trial else self._places:
            if not trial:
                self.admit()
            try:
                if self._bucket is not None:
                    await self._bucket.take()
            except Throttled as error:
                raise self._refusal("a pause was asked for", error.seconds) from error
            self._wait_seconds += anyio.current_time() - began
            yield

    def admit(self) -> bool:
        """Whether this call is the trial of a breaker that is not closed.

        Raises:
            Unavailable: another one was the trial not long ago.
        """
        if self._breaker is None or self._breaker.state is BreakerState.CLOSED:
            return False
        wait = self._breaker.admit()
        if wait:
            raise self._refusal(f"several failed in a row, the last: {self._last_failure}", wait)
        return True

    def answered(self, verb: str, status: int) -> None:
        """The backend understood: it is there, whatever it said."""
        self._requests[verb, f"{status // 100}xx"] += 1
        self._throttled_in_a_row = 0
        self._answered_at = anyio.current_time()
        if self._breaker is not None and self._breaker.answered():
            log.info("backend answers again", backend=self.name)

    def failed(
        self,
        verb: str,
        status: int | None,
        *,
        caller: Hashable,
        reason: str,
        began: float = math.inf,
    ) -> None:
        """No answer, or one that says that the backend is sick; `began` as `Breaker.failed`."""
        self._requests[verb, f"{status // 100}xx" if status else "none"] += 1
        self._answered_at = -math.inf
        self._last_failure = reason
        if self._breaker is not None and self._breaker.failed(caller, began=began):
            log.warning("backend is sick: calls are held back", backend=self.name, reason=reason)

    def throttled(self, verb: str, asked_seconds: float | None) -> None:
        """The backend said 429: it is not sick, but gets no calls for as long as it asked."""
        self._requests[verb, "4xx"] += 1
        self._throttled += 1
        doubled = FIRST_HOLD_SECONDS * 2**self._throttled_in_a_row
        self._throttled_in_a_row = min(self._throttled_in_a_row + 1, 10)
        self.hold(min(doubled, MAX_HOLD_SECONDS) if asked_seconds is None else asked_seconds)

    def has_answered_within(self, seconds: float) -> bool:
        """Whether the last request was answered, not longer ago than this."""
        return anyio.current_time() - self._answered_at <= seconds

    def repeated(self) -> None:
        """A request is made again."""
        self._retries += 1

    def hold(self, seconds: float) -> None:
        """Make no calls for so long, within reason."""
        if self._bucket is not None:
            self._bucket.hold(min(seconds, MAX_ASKED_SECONDS))

    def keep_to(self, remaining: int, reset_seconds: float) -> None:
        """The backend takes so many calls until its count begins anew."""
        if remaining <= 0:
            self.hold(reset_seconds)
        elif self._bucket is not None:
            self._bucket.keep_to(remaining)

    def view(self) -> BackendView:
        """It now."""
        breaker = self._breaker
        return BackendView(
            name=self.name,
            breaker=(breaker.state if breaker else BreakerState.CLOSED).value,
            trips=breaker.trips if breaker else 0,
            requests=dict(self._requests),
            retries=self._retries,
            throttled=self._throttled,
            refused=self._refused,
            wait_seconds=round(self._wait_seconds, 6),
            in_flight=self._places.borrowed_tokens,
            places=int(self._places.total_tokens),
        )

    def _refusal(self, why: str, seconds: float) -> Unavailable:
        self._refused += 1
        msg = f"calls held back ({self.name}): {why}; next try in {seconds:.1f} s"
        return Unavailable(msg, retry_after_seconds=seconds)
