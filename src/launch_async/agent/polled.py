"""One polled queue: when it is looked into next, in what company, and how it answered.

```
TRUSTED --a request that it shared fails--> SUSPECT --it fails alone--> SICK
   ^                                           |                          |
   +----------------- it answers alone --------+---- ANSWERS_OWED times --+
```
"""

import random
from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto

import anyio
import msgspec

from launch_async.agent.insist import MAX_PAUSE_SECONDS
from launch_async.domain.errors import Unavailable
from launch_async.domain.ids import QueueRef

GROWTH = 1.5
"""By this the pause of an idle queue grows from look to look."""
MAX_APPETITE = 16
"""Items asked for at once at most, from a queue that gave all that it was asked for."""
ANSWERS_OWED = 3
"""Answers in a row that a queue which failed alone gives alone before it has company again."""


class Standing(Enum):
    """What is known of a queue: a request has one answer for all that share it, or none."""

    TRUSTED = auto()
    """It is asked together with others."""
    SUSPECT = auto()
    """It, or one that was asked with it, kept a request from being answered: it is asked alone."""
    SICK = auto()
    """It failed alone."""


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
        self.fault = ""
        """Why it cannot be polled; empty when it can."""
        self._owed = 0

    @property
    def standing(self) -> Standing:
        """Whom it may share a request and its place with."""
        if not self._owed:
            return Standing.TRUSTED
        return Standing.SUSPECT if self._owed == 1 else Standing.SICK

    def answered(self, items: int, *, of: int, pace: Pace) -> None:
        """`items` were found in `of` looks."""
        self.polls["item"] += items
        self.polls["empty"] += of - items
        self.last_answer = anyio.current_time()
        self.fault = ""
        self._owed = max(0, self._owed - 1)
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

    def failed_together(self) -> None:
        """A request that it shared failed, perhaps because of another one: it is asked at once."""
        self.polls["error"] += 1
        self.appetite = 1
        self._owed = max(self._owed, 1)
        self.due_at = anyio.current_time()

    def failed_alone(self) -> None:
        """What failed was a request of its own."""
        self._owed = ANSWERS_OWED

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
