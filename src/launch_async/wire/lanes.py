r"""Lanes: calls to one API that must not wait for each other, each behind a bulkhead of its own.

```
pulse   heartbeats and stop requests   a bucket of its own: a storm of pops must not silence them
pops    looks into queues            \
claims  acks and failure reports      } one bucket; a lane's places bound how far it can run ahead
calls   everything else              /
files   uploads and downloads          a bucket of its own: often another host
```
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from launch_async.kit.breaker import Breaker
from launch_async.kit.ratelimit import TokenBucket
from launch_async.ports.backends import BackendView
from launch_async.wire.bulkhead import Bulkhead

PER_SECOND = 50.0
BURST = 100
PULSE_PER_SECOND = 5.0
PULSE_BURST = 20
MAX_WAIT_SECONDS = 60.0
"""In which a token must come, else the call says how long to wait."""
FAILURES = 5
OPEN_SECONDS = 5.0

OTHER = "other"

_OPERATION = re.compile(r"\s*(?:query|mutation)\s+(\w{1,64})")


class Lane(StrEnum):
    """One kind of calls."""

    PULSE = "pulse"
    POPS = "pops"
    CLAIMS = "claims"
    CALLS = "calls"
    FILES = "files"


PLACES: Mapping[Lane, int] = {
    Lane.PULSE: 8,
    Lane.POPS: 40,  # a few more than the poller has
    Lane.CLAIMS: 32,
    Lane.CALLS: 64,
    Lane.FILES: 16,
}
TRIES: Mapping[Lane, int] = {
    Lane.PULSE: 2,  # its callers come again by themselves
    Lane.POPS: 1,  # a lost answer may have leased items, and pollers come again as well
}
VERBS: Mapping[str, Lane] = {
    "LaunchAgent": Lane.PULSE,
    "updateLaunchAgent": Lane.PULSE,
    "LaunchRuns": Lane.PULSE,
    "popFromRunQueue": Lane.POPS,
    "ackRunQueueItem": Lane.CLAIMS,
    "failRunQueueItem": Lane.CLAIMS,
    "requeueRunQueueItem": Lane.CLAIMS,
    "updateRunQueueItemWarning": Lane.CLAIMS,
    "pushToRunQueueByName": Lane.POPS,  # never repeated either: it could queue a run twice
    **dict.fromkeys(
        (
            *("Viewer", "ProjectRunQueues", "createLaunchAgent", "PopFields", "UpsertBucket"),
            *("CreateRunFiles", "ArtifactMembershipByName", "ArtifactByID", "RequeueFields"),
            "StopRun",
        ),
        Lane.CALLS,
    ),
}
"""The closed list of operations that metrics tell apart."""


def verb_of(document: str) -> str:
    """The operation's name if it is in the closed list."""
    found = _OPERATION.match(document)
    return found[1] if found and found[1] in VERBS else OTHER


class Lanes:
    """The bulkheads of one API's lanes."""

    def __init__(self, bulkheads: Mapping[Lane, Bulkhead]) -> None:
        self._bulkheads = bulkheads

    @classmethod
    def unlimited(cls) -> "Lanes":
        """For a program with one caller: it has no others to protect, and shall hear the truth."""
        return cls({lane: Bulkhead(lane, places=places) for lane, places in PLACES.items()})

    @classmethod
    def guarded(
        cls,
        *,
        per_second: float = PER_SECOND,
        burst: int = BURST,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        open_seconds: float = OPEN_SECONDS,
    ) -> "Lanes":
        """For an agent; `open_seconds` is also how soon it notices that an outage is over."""

        def bucket(rate: float, size: int) -> TokenBucket:
            return TokenBucket(per_second=rate, burst=size, max_wait_seconds=max_wait_seconds)

        shared = bucket(per_second, burst)
        buckets = {
            Lane.PULSE: bucket(PULSE_PER_SECOND, PULSE_BURST),
            Lane.FILES: bucket(per_second, burst),
        }
        return cls(
            {
                lane: Bulkhead(
                    lane,
                    places=places,
                    bucket=buckets.get(lane, shared),
                    breaker=Breaker(failures=FAILURES, open_seconds=open_seconds),
                )
                for lane, places in PLACES.items()
            }
        )

    def __getitem__(self, lane: Lane) -> Bulkhead:
        return self._bulkheads[lane]

    def backends(self) -> Sequence[BackendView]:
        """Each lane now."""
        return [bulkhead.view() for bulkhead in self._bulkheads.values()]
