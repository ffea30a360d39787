"""Where an agent looks for its runs at a start: where it made some, and where it is told to."""

from collections.abc import Sequence

import structlog

from launch_async.adapters.runners.kubernetes.clusters import OWN, Clusters
from launch_async.adapters.runners.kubernetes.kinds import JOBS, Kind
from launch_async.adapters.runners.kubernetes.spots import ClusterKey, Spot, Spots
from launch_async.domain.errors import ItemError

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Searches:
    """The spots of earlier lives, and with `configured` those of the agent's own cluster: its own
    namespace and `namespaces`, each for Jobs and `kinds` (apiVersion and kind).
    """

    def __init__(
        self,
        clusters: Clusters,
        spots: Spots,
        *,
        configured: bool,
        namespaces: Sequence[str],
        kinds: Sequence[tuple[str, str]],
    ) -> None:
        self._clusters = clusters
        self._spots = spots
        self._configured = configured
        self._namespaces = namespaces
        self._kinds = kinds

    async def spots(self) -> Sequence[Spot]:
        """All that can have runs. A kind that is not there took with it all that was of it.

        Raises:
            Unavailable: a cluster does not answer, or cannot be reached as configured.
        """
        remembered = await self._spots.all()
        found = [
            spot
            for spot in remembered
            if await self._find(spot.cluster, spot.kind.api_version, spot.kind.kind)
        ]
        if self._configured:
            own = await self._clusters.reach(OWN)
            looked_up = [await self._find(OWN, *names) for names in self._kinds]
            kinds = [JOBS, *[kind for kind in looked_up if kind is not None]]
            for namespace in (own.api.namespace, *self._namespaces):
                found += [Spot(namespace=namespace, kind=kind) for kind in kinds]
        return tuple(dict.fromkeys(found))

    async def _find(self, key: ClusterKey, api_version: str, kind: str) -> Kind | None:
        cluster = await self._clusters.reach(key)
        try:
            return await cluster.kinds.find(api_version, kind)
        except ItemError as error:
            log.info("a kind is not searched", kind=f"{api_version}/{kind}", why=str(error))
            return None
