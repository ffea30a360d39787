"""What the cluster's parts have to say of a run that does not begin: asked for, as no selector of
labels finds events and a watch on all of a namespace's would be as large as the cluster is busy.
"""

from collections.abc import Sequence

import anyio
import msgspec
import structlog

from launch_async.adapters.runners.kubernetes.objects import Event
from launch_async.adapters.runners.kubernetes.watches import Station
from launch_async.domain.errors import Unavailable
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

PATIENCE_SECONDS = 10.0
"""How long a run may take to begin before anybody is asked."""
AGAIN_SECONDS = 30.0
_AT_ONCE = 2
_OBJECTS = 3
"""The run's own and a few of its pods."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Events(msgspec.Struct, frozen=True):
    items: tuple[Event, ...] | None = None


class EventLooks:
    """Bounded over all runs: a thousand that wait for a quota are a few requests at a time."""

    def __init__(self) -> None:
        self._places = anyio.CapacityLimiter(_AT_ONCE)
        self._refused = False

    async def of(self, station: Station, item: str, uid: str) -> tuple[Event, ...]:
        """Events of a run's object and pods; () when nobody says, which is no fault of the run."""
        pods = [pod.metadata.uid for pod in station.pods.there(item)]
        wanted = dict.fromkeys([uid, *pods[: _OBJECTS - 1]])
        try:
            async with self._places:
                return tuple([event for one in wanted for event in await _about(station, one)])
        except KubeRefused as error:
            if not self._refused:
                log.warning("events cannot be read: grant the verb list", why=error.message)
            self._refused = True
        except Unavailable as error:
            log.debug("events are not read", why=str(error))
        return ()


async def _about(station: Station, uid: str) -> Sequence[Event]:
    path = f"/api/v1/namespaces/{station.spot.namespace}/events"
    params = {"fieldSelector": f"involvedObject.uid={uid}", "limit": "50"}
    return decoded(await station.cluster.api.get(path, params), _Events).items or ()
