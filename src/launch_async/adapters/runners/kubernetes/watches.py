"""What is known of an agent's runs in its clusters, from one list+watch per namespace and kind.

```
Station (cluster, namespace, kind)                 one informer of the runs' objects
Pods    (cluster, namespace)                       one of their pods, shared by all kinds
   |  a change of an object or of one of its pods
   v
Bells: the run's watch looks again, in memory
```

A station begins when a run is launched or looked for there. What is said of a run costs no request.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import anyio
import anyio.abc
import msgspec

from launch_async.adapters.runners.kubernetes.clusters import Cluster
from launch_async.adapters.runners.kubernetes.informer import Informer, Pace
from launch_async.adapters.runners.kubernetes.kinds import PODS, Kind
from launch_async.adapters.runners.kubernetes.names import IDENTITY_LABEL, label_value
from launch_async.adapters.runners.kubernetes.objects import Custom, Job, Meta, Pod
from launch_async.adapters.runners.kubernetes.spots import ClusterKey, Spot
from launch_async.adapters.runners.kubernetes.verdicts import Launched
from launch_async.domain.errors import Unavailable
from launch_async.kit.bells import Bell, Bells
from launch_async.kit.once import Once

BORN_SECONDS = 60.0
"""How long the watch may take to tell of an object that was just made."""

_SYNC_SECONDS = 60.0

T = TypeVar("T")


def type_of(kind: Kind) -> type[Launched]:
    """How objects of this kind are read."""
    if kind.kind == "Job" and kind.api_version.startswith("batch/"):
        return Job
    return Pod if (kind.api_version, kind.kind) == ("v1", "Pod") else Custom


def item_of(meta: Meta) -> str:
    """The item, as its label has it, that an object or a pod is about."""
    return meta.label().item


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one run's object. `there` False: it was, and is gone."""

    launched: Launched
    there: bool
    unseen: bool = False
    """Whether it went while nobody watched."""


class Pods:
    """The pods of all runs in one namespace, also those that are gone, by the item's label."""

    def __init__(
        self, cluster: Cluster, namespace: str, identity: str, bells: Bells, pace: Pace
    ) -> None:
        self._by_item: dict[str, dict[str, Pod]] = {}
        self._beside: dict[str, dict[str, Pod]] = {}
        self._gone: set[str] = set()
        self._bells = bells
        self.informer: Informer[Pod] = Informer(
            cluster.api,
            PODS,
            namespace,
            selector_of(identity),
            Pod,
            self._changed,
            on_health=bells.ring_all,
            pace=pace,
        )

    def of(self, item: str) -> Sequence[Pod]:
        """All that were seen of this item's."""
        return tuple(self._by_item.get(item, {}).values())

    def there(self, item: str) -> Sequence[Pod]:
        """Those that are there now."""
        return tuple(pod for pod in self.of(item) if pod.metadata.uid not in self._gone)

    def beside(self, item: str) -> Sequence[Pod]:
        """Those of what runs beside this item's run, that are there now."""
        return tuple(self._beside.get(item, {}).values())

    def learn(self, pods: Sequence[Pod]) -> None:
        """These are there, as the API server itself says; the watch may tell of it later."""
        for pod in pods:
            uid = pod.metadata.uid
            if uid not in self._gone:
                self._by_item.setdefault(item_of(pod.metadata), {})[uid] = pod

    def forget(self, item: str) -> None:
        """Nobody asks for those that are gone any more."""
        for uid in self._gone & self._by_item.get(item, {}).keys():
            self._drop(item, uid)

    def _changed(self, pod: Pod, gone: bool) -> None:
        item, uid = item_of(pod.metadata), pod.metadata.uid
        if not item:
            self._changed_beside(pod, gone)
            return
        if gone and item not in self._bells:
            self._drop(item, uid)
            return
        self._by_item.setdefault(item, {})[uid] = pod
        if gone:
            self._gone.add(uid)
        self._bells.ring(item)

    def _changed_beside(self, pod: Pod, gone: bool) -> None:
        item, uid = pod.metadata.label().service_of, pod.metadata.uid
        if not item:
            return
        pods = self._beside.setdefault(item, {})
        if gone:
            pods.pop(uid, None)
        else:
            pods[uid] = pod
        if not pods:
            del self._beside[item]
        self._bells.ring(item)

    def _drop(self, item: str, uid: str) -> None:
        pods = self._by_item.get(item, {})
        pods.pop(uid, None)
        self._gone.discard(uid)
        if not pods:
            self._by_item.pop(item, None)


class Station:
    """One kind of objects in one namespace; of pods without a controller, the pods themselves."""

    def __init__(  # noqa: PLR0917 - all of them say what is watched
        self, spot: Spot, cluster: Cluster, pods: Pods, identity: str, bells: Bells, pace: Pace
    ) -> None:
        self.spot = spot
        self.cluster = cluster
        self.pods = pods
        self.said = Once()
        """What this life has said of it already."""
        self._bells = bells
        self._born: dict[str, tuple[float, Launched]] = {}
        self._last: dict[str, Seen] = {}
        self._by_run: dict[str, set[str]] = {}
        self._let_go: set[str] = set()
        self.whole: set[str] = set()
        """Objects (by uid) that have all that their pods wait for, as this life knows."""
        self.informer: Informer[Launched] = Informer(
            cluster.api,
            spot.kind,
            spot.namespace,
            selector_of(identity),
            type_of(spot.kind),
            self._changed,
            on_health=bells.ring_all,
            pace=pace,
        )

    @property
    def why_not_fresh(self) -> str:
        """Why nothing can be said now; empty: it can."""
        return self.informer.why or self.pods.informer.why

    async def synced(self) -> None:
        """Until it was listed for the first time: what cannot be watched is not begun.

        Raises:
            Unavailable: the API server does not let us, or does not answer for long.
        """
        for informer in (self.informer, self.pods.informer):
            with anyio.move_on_after(_SYNC_SECONDS):
                await informer.wait_synced()
                continue
            what = f"{informer.kind.plural} of the namespace {self.spot.namespace}"
            raise Unavailable(f"{what} cannot be listed: {informer.why}")

    def born(self, launched: Launched) -> None:
        """This object was made just now: the watch will tell of it."""
        if launched.metadata.uid not in self.informer.objects():
            self._born[launched.metadata.uid] = (anyio.current_time(), launched)
            run = launched.metadata.label().run
            self._by_run.setdefault(run, set()).add(launched.metadata.uid)

    def see(self, uid: str) -> Seen | None:
        """What is known of an object; None: nothing, which may mean that it is gone."""
        if uid in self._let_go:
            return None
        found = self.informer.objects().get(uid)
        if found is not None:
            return Seen(launched=found, there=True)
        made_at, launched = self._born.get(uid, (0.0, None))
        if launched is not None and anyio.current_time() < made_at + BORN_SECONDS:
            return Seen(launched=launched, there=True)
        self._born.pop(uid, None)
        return self._last.get(uid)

    def others(self, run: str, item: str) -> Sequence[Launched]:
        """Objects of the same run (its label's value) that are there for another item."""
        seen = map(self.see, self._by_run.get(run, ()))
        there = [one.launched for one in seen if one is not None and one.there]
        # One without an item runs beside a run.
        return [one for one in there if item_of(one.metadata) not in ("", item)]

    def forget(self, item: str, uid: str) -> None:
        """Nobody asks for it any more, though it may be there until the watch tells otherwise."""
        if uid in self.informer.objects():
            self._let_go.add(uid)
        self._born.pop(uid, None)
        self._last.pop(uid, None)
        self.whole.discard(uid)
        self.pods.forget(item)

    def _changed(self, launched: Launched, gone: bool) -> None:
        item, uid = item_of(launched.metadata), launched.metadata.uid
        run = launched.metadata.label().run
        self._born.pop(uid, None)
        if gone:
            self._let_go.discard(uid)
            self.whole.discard(uid)
            self._by_run.get(run, set()).discard(uid)
            if not self._by_run.get(run):
                self._by_run.pop(run, None)
            if item in self._bells:
                self._last[uid] = Seen(launched=launched, there=False, unseen=self.informer.lists)
        else:
            self._by_run.setdefault(run, set()).add(uid)
        self._bells.ring(item)


class Watches:
    """All stations of one agent; `serve` keeps them going."""

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._bells = Bells()
        self._stations: dict[tuple[Spot, str], Station] = {}
        self._pods: dict[tuple[ClusterKey, str, str], Pods] = {}
        self._waiting: list[Informer[Pod] | Informer[Launched]] = []
        self._tasks: anyio.abc.TaskGroup | None = None

    async def serve(self) -> None:
        """List and watch at every station until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                for informer in self._waiting:
                    tasks.start_soon(informer.serve, name=_task_name(informer))
                self._waiting.clear()
                await anyio.sleep_forever()
            finally:
                self._tasks = None

    def station(self, spot: Spot, cluster: Cluster, identity: str) -> Station:
        """The station of this spot for one agent's runs, begun if it is new."""
        found = self._stations.get((spot, identity))
        if found is not None:
            return found
        place = (spot.cluster, spot.namespace, identity)
        pods = self._pods.get(place)
        if pods is None:
            pods = self._pods[place] = Pods(
                cluster, spot.namespace, identity, self._bells, self._pace
            )
            self._begin(pods.informer)
        station = Station(spot, cluster, pods, identity, self._bells, self._pace)
        self._stations[spot, identity] = station
        self._begin(station.informer)
        return station

    def why_stale(self, cluster: Cluster) -> str:
        """Why what is known of the runs in a cluster is out of date; empty: it is not."""
        stations = (one for one in self._stations.values() if one.cluster is cluster)
        reasons = (one.why_not_fresh for one in stations if one.informer.objects())
        return next(filter(None, reasons), "")

    def spawn(self, work: Callable[[], Awaitable[None]]) -> anyio.CancelScope:
        """Do something beside, until it ends, its scope is cancelled or `serve` is.

        Raises:
            Unavailable: `serve` does not run.
        """
        if self._tasks is None:
            raise Unavailable("The watches of Kubernetes are not running.")
        scope = anyio.CancelScope()

        async def owned() -> None:
            with scope:
                await work()

        self._tasks.start_soon(owned, name="kubernetes-logs")
        return scope

    def follow(self, item: str) -> AbstractContextManager[Bell]:
        """A bell for one item (its label's value), for as long as the block lasts."""
        return self._bells.follow(item)

    def _begin(self, informer: Informer[Pod] | Informer[Launched]) -> None:
        if self._tasks is None:
            self._waiting.append(informer)
        else:
            self._tasks.start_soon(informer.serve, name=_task_name(informer))


def selector_of(identity: str) -> str:
    """What finds all that an agent has made."""
    return f"{IDENTITY_LABEL}={label_value(identity)}"


def now() -> float:
    """Unix time, as verdicts want it."""
    return time.time()


def _task_name(informer: Informer[Pod] | Informer[Launched]) -> str:
    return f"kubernetes-{informer.kind.plural}-{informer.namespace}"
