"""One polled queue: when it is looked into next, how much is asked of it, and how it answered."""

import random
from collections import Counter
from collections.abc import Sequence

import anyio
import msgspec

from launch_async.agent.insist import MAX_PAUSE_SECONDS
from launch_async.domain.errors import Unavailable
from launch_async.domain.ids import QueueRef

GROWTH = 1.5
"""By this the pause of an idle queue grows from look to look."""
MAX_APPETITE = 16
"""Items asked for at once at most, from a queue that gave all that it was asked for."""
MAX_WIDTH = 50
"""Looks in one request at most; our server takes some 200, of others nothing is known."""
NARROWING = 8
"""By this a request gets narrower that failed as a whole."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The pauses between two looks into an idle queue, in seconds."""

    poll: float
    """After the first look that found nothing."""
    poll_max: float
    """What it grows to."""

    def jittered(self) -> "Pace":
        """A little shorter, never longer. One for all queues of a request: they stay together."""
        factor = random.uniform(0.8, 1.0)  # noqa: S311 - jitter
        return Pace(poll=self.poll * factor, poll_max=self.poll_max * factor)


class PolledQueue:
    """The state of one queue's polling; it decides nothing for the others."""

    def __init__(self, ref: QueueRef) -> None:
        self.ref = ref
        self.polls: Counter[str] = Counter()
        """Looks by outcome: `item`, `empty`, `error`."""
        self.last_answer: float | None = None
        """When the queue last answered, on the loop's clock."""
        self.interval_seconds = 0.0
        self.due_at = 0.0
        self.appetite = 1
        self.width = MAX_WIDTH
        """How many looks a request with this queue may hold: less once such a request failed."""
        self.fault = ""
        """Why it cannot be polled; empty when it can."""

    def answered(self, items: int, *, of: int, pace: Pace) -> None:
        """`items` were found in `of` looks."""
        self.polls["item"] += items
        self.polls["empty"] += of - items
        self.last_answer = anyio.current_time()
        self.fault = ""
        self.width = min(self.width * 2, MAX_WIDTH)
        if items == of:
            self.appetite = min(self.appetite * 2, MAX_APPETITE)
            self.interval_seconds = 0.0
            self.due_at = self.last_answer
            return
        self.appetite = 1
        self._rest(pace, again=items > 0)

    def failed(self, error: Exception, *, pace: Pace) -> None:
        """It gave no answer, or none that helps."""
        self.polls["error"] += 1
        self.fault = str(error) or type(error).__name__
        self.appetite = 1
        self._rest(pace, again=False)
        asked = asked_pause(error)
        if asked is not None:
            self.due_at = max(self.due_at, anyio.current_time() + asked)

    def suspect(self, width: int) -> None:
        """A request with `width` looks failed as a whole: this queue may be why.

        Two steps to a request of its own: while it hangs, it keeps its company waiting.
        """
        self.width = max(1, width // NARROWING)

    def _rest(self, pace: Pace, *, again: bool) -> None:
        longer = pace.poll if again else self.interval_seconds * GROWTH
        self.interval_seconds = min(max(pace.poll, longer), pace.poll_max)
        self.due_at = anyio.current_time() + self.interval_seconds


def asked_pause(error: Exception) -> float | None:
    """How long the service asked to be left alone, within reason."""
    asked = error.retry_after_seconds if isinstance(error, Unavailable) else None
    return None if asked is None else min(asked, MAX_PAUSE_SECONDS)


def names_of(queues: Sequence[PolledQueue]) -> list[str]:
    """For a log line: not hundreds of names."""
    names = [queue.ref.name for queue in queues[:10]]
    return names if len(queues) <= 10 else [*names, f"and {len(queues) - 10} more"]
