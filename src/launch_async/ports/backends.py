"""What the agent shows of the backends that it calls, for metrics."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec


class BackendView(msgspec.Struct, frozen=True, kw_only=True):
    """One backend, or one kind of calls to it, since the start."""

    name: str
    """`pulse`, `pops`, `claims`, `calls` and `files` of the control plane, or `docker`."""
    breaker: int
    """0 closed, 1 open, 2 half-open: one call is let through."""
    trips: int
    requests: Mapping[tuple[str, str], int]
    """By verb and class of code (`2xx` … `5xx`, `none` without an answer). Verbs come from a closed
    list, so that no series grows."""
    retries: int
    throttled: int
    """Answers 429."""
    refused: int
    """Calls that were not made: breaker open, or asked to wait for longer than a call does."""
    wait_seconds: float
    """That calls waited here for a place or a token, in sum."""
    in_flight: int
    places: int
    """Calls at once at most."""
    stale: str = ""
    """Why what is known of its runs is out of date; empty: it is not, as far as one can know."""
    needed: bool = True
    """Whether anything depends on it: no item has asked for each backend that is configured."""


@runtime_checkable
class BackendSource(Protocol):
    """Gives the views; cheap, never waits. A runner may be one."""

    def backends(self) -> Sequence[BackendView]:
        """Each backend now."""
        ...
