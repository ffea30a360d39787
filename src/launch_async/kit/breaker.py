"""A circuit breaker: a backend that failed several callers in a row is asked by one at a time.

```
CLOSED --several callers fail in a row--> OPEN --a while later--> HALF_OPEN: one call is let through
  ^                                        ^                          |
  |                                        +---------- it fails ------+
  +------------------- any call is answered --------------------------+
```
"""

import math
from collections.abc import Hashable
from enum import IntEnum

import anyio


class BreakerState(IntEnum):
    """The numbers that metrics show."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class Breaker:
    """Opens after `failures` in a row of at least two callers.

    One caller's failures are its own trouble (a sick queue, a poisoned item) and it has pauses of
    its own; they must not hold up the others. A trial that hangs does not keep the next one back:
    there is one every `open_seconds`.
    """

    def __init__(self, *, failures: int, open_seconds: float) -> None:
        self.state = BreakerState.CLOSED
        self.trips = 0
        """How often it opened."""
        self._failures = failures
        self._open_seconds = open_seconds
        self._in_a_row = 0
        self._first: Hashable = None
        self._several = False
        self._next_trial = 0.0
        self._answered_at = -math.inf

    @property
    def wait_seconds(self) -> float:
        """Until a call may be tried; 0 when it may now."""
        if self.state is BreakerState.CLOSED:
            return 0.0
        return max(0.0, self._next_trial - anyio.current_time())

    def admit(self) -> float:
        """As `wait_seconds`; at 0 while it is not closed, the call is the trial."""
        wait = self.wait_seconds
        if self.state is not BreakerState.CLOSED and not wait:
            self.state = BreakerState.HALF_OPEN
            self._next_trial = anyio.current_time() + self._open_seconds
        return wait

    def answered(self) -> bool:
        """A call was answered; True when this closes the breaker."""
        closes = self.state is not BreakerState.CLOSED
        self._answered_at = anyio.current_time()
        self.state = BreakerState.CLOSED
        self._in_a_row = 0
        self._several = False
        return closes

    def failed(self, caller: Hashable, *, began: float = math.inf) -> bool:
        """A call was not answered; True when this opens the breaker.

        If another one was answered since it `began`, on the loop's clock, the backend is there.
        """
        if self.state is not BreakerState.CLOSED:
            self.state = BreakerState.OPEN
            return False
        if began < self._answered_at:
            return False
        if not self._in_a_row:
            self._first = caller
        self._in_a_row += 1
        self._several = self._several or caller != self._first
        if self._in_a_row < self._failures or not self._several:
            return False
        self.state = BreakerState.OPEN
        self.trips += 1
        self._next_trial = anyio.current_time() + self._open_seconds
        return True
