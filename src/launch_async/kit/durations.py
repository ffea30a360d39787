"""How long something took, counted in buckets: bounded memory for any number of measurements."""

from bisect import bisect_left
from itertools import accumulate

BOUNDS_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
"""With the one for all that is longer, fourteen."""


class Durations:
    """Durations of one kind."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds

    def buckets(self) -> tuple[int, ...]:
        """How many took at most each bound, and all of them last."""
        return tuple(accumulate(self._counts))
