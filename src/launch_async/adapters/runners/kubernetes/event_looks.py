"""What the cluster's parts have to say of a run that does not begin: asked for, as no selector of
labels finds events and a watch on all of a namespace's would be as large as the cluster is busy.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

import anyio
import msgspec
import structlog

from launch_async.adapters.runners.kubernetes.events_text import event_warnings
from launch_async.adapters.runners.kubernetes.objects import Event
from launch_async.adapters.runners.kubernetes.spots import ClusterKey
from launch_async.adapters.runners.kubernetes.watches import Station
from launch_async.domain.errors import Unavailable
from launch_async.domain.run import RunState, RunStatus
from launch_async.kit.ratelimit import Throttled, TokenBucket
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

PATIENCE_SECONDS = 10.0
"""How long a run may take to begin before anybody is asked."""
AGAIN_SECONDS = 30.0

_PER_SECOND = 1.0
_BURST = 20
_OBJECTS = 3
"""The run's own and a few of its pods."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Events(msgspec.Struct, frozen=True):
    items: tuple[Event, ...] | None = None


class EventLooks:
    """Bounded for each cluster, where each look costs as much as the namespace has events: of
    thousands of runs that wait for a quota some are asked about, and nobody waits for his turn.
    """

    def __init__(self) -> None:
        self._budgets: defaultdict[ClusterKey, TokenBucket] = defaultdict(
            lambda: TokenBucket(per_second=_PER_SECOND, burst=_BURST, max_wait_seconds=0.0)
        )
        self._refused = False

    def begin(self) -> "RunEvents":
        """The looks for one run."""
        return RunEvents(self)

    async def of(self, station: Station, item: str, uid: str) -> tuple[Event, ...] | None:
        """Events of a run's object and pods; () when nobody says, which is no fault of the run.

        None: too many ask just now.
        """
        pods = [pod.metadata.uid for pod in station.pods.there(item)]
        wanted = dict.fromkeys([uid, *pods[: _OBJECTS - 1]])
        try:
            await self._budgets[station.cluster.key].take()
            return tuple([event for one in wanted for event in await _about(station, one)])
        except Throttled:
            return None
        except KubeRefused as error:
            if not self._refused:
                log.warning("events cannot be read: grant the verb list", why=error.message)
            self._refused = True
        except Unavailable as error:
            log.debug("events are not read", why=str(error))
        return ()


class RunEvents:
    """When to ask for one run: while it does not begin, or its node is lost."""

    def __init__(self, looks: EventLooks) -> None:
        self._looks = looks
        self._ask_at = anyio.current_time() + PATIENCE_SECONDS
        self._found: tuple[Event, ...] = ()

    def is_due(self, status: RunStatus) -> bool:
        """Whether it is time to ask, where the run is as `status` says."""
        return anyio.current_time() >= self._ask_at and _is_in_doubt(status)

    async def of(self, station: Station, item: str, uid: str) -> tuple[Event, ...]:
        """What was told last; the next look is due after a while."""
        found = await self._looks.of(station, item, uid)
        if found is not None:
            self._found = found
        share = 1.0 if found is not None else random.uniform(0.5, 1.0)  # noqa: S311 - by turns
        self._ask_at = anyio.current_time() + AGAIN_SECONDS * share
        return self._found


def with_events(status: RunStatus, events: Sequence[Event]) -> RunStatus:
    """With what events tell beside it: an autoscaler that adds no node, a node that is gone."""
    told = event_warnings(events)
    if not told or not _is_in_doubt(status):
        return status
    warning = "; ".join(filter(None, (status.warning, *told)))
    return msgspec.structs.replace(status, warning=warning)


def _is_in_doubt(status: RunStatus) -> bool:
    """Of a cluster that does not answer nothing need be asked: then there is no warning."""
    unknown = status.state is RunState.UNKNOWN and bool(status.warning)
    return unknown or status.state is RunState.STARTING


async def _about(station: Station, uid: str) -> Sequence[Event]:
    path = f"/api/v1/namespaces/{station.spot.namespace}/events"
    params = {"fieldSelector": f"involvedObject.uid={uid}", "limit": "50"}
    return decoded(await station.cluster.api.get(path, params), _Events).items or ()
