"""The clusters that an agent uses: its own, and those that queues name where they may."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio
import msgspec

from launch_async.adapters.runners.kubernetes.dropped import refuses_unknown_fields
from launch_async.adapters.runners.kubernetes.kinds import Kinds
from launch_async.adapters.runners.kubernetes.spots import ClusterKey
from launch_async.domain.errors import ConfigError, Unavailable
from launch_async.ports.backends import BackendView
from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import KubeRefused

OWN = ClusterKey()

_CONCURRENT_STARTS = 32
_STILL_THERE_SECONDS = 1.0
"""For so long after its last answer a cluster need not be asked whether it is there."""

Connect = Callable[[ClusterKey], KubeCluster]


class Cluster:
    """One of them, with the kinds that it has."""

    def __init__(self, key: ClusterKey, api: KubeCluster) -> None:
        self.key = key
        self.api = api
        self.kinds = Kinds(api)
        self.starts = anyio.CapacityLimiter(_CONCURRENT_STARTS)
        """Runs that are being made in it: one that hangs keeps no place of another."""
        self._refuses_unknown: bool | None = None

    async def refuses_unknown_fields(self) -> bool:
        """Whether it does so when asked to; asked once."""
        if self._refuses_unknown is None:
            try:
                version = await self.api.get("/version")
            except KubeRefused:
                version = b""
            self._refuses_unknown = refuses_unknown_fields(version)
        return self._refuses_unknown


class Clusters:
    """Connected at their first use."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._open: dict[ClusterKey, Cluster] = {}

    async def get(self, key: ClusterKey) -> Cluster:
        """The cluster, its configuration read.

        Raises:
            ConfigError: its configuration is missing or wrong.
        """
        cluster = self._open.get(key)
        if cluster is None:
            cluster = self._open.setdefault(key, Cluster(key, self._connect(key)))
        await cluster.api.open()
        return cluster

    async def reach(self, key: ClusterKey) -> Cluster:
        """As `get`, for who can wait until its configuration is mended.

        Raises:
            Unavailable: its configuration is missing or wrong.
        """
        try:
            return await self.get(key)
        except ConfigError as error:
            raise Unavailable(str(error)) from error

    async def check(self) -> None:
        """Raises Unavailable when the agent's own cluster cannot be used now."""
        api = (await self.reach(OWN)).api
        if not api.bulkhead.has_answered_within(_STILL_THERE_SECONDS):
            await api.check()

    def views(self, why_stale: Callable[[Cluster], str] = lambda _: "") -> Sequence[BackendView]:
        """All that were used; `why_stale` as the field of a view."""
        return [
            msgspec.structs.replace(one.api.view(), stale=why_stale(one))
            for one in self._open.values()
        ]

    async def close(self) -> None:
        """Give back all connections."""
        for cluster in self._open.values():
            await cluster.api.close()


def connector(
    *,
    config_file: Path | None,
    context: str | None,
    environ: Mapping[str, str],
    calls_per_second: float,
    burst: int,
) -> Connect:
    """Connects the agent's own cluster with these settings, and others by what names them."""

    def connect(key: ClusterKey) -> KubeCluster:
        own_file = Path(key.config_file).expanduser() if key.config_file else config_file
        named = key.context or (None if key.config_file else context)
        return KubeCluster(
            config_file=own_file,
            context=named,
            environ=environ,
            calls_per_second=calls_per_second,
            burst=burst,
            name=" ".join(filter(None, ["kubernetes", key.config_file, key.context])),
        )

    return connect
