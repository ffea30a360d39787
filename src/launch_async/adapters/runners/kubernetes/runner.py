"""Runs images as objects of Kubernetes clusters: Jobs, pods, and whatever kind a queue names.

```
launch: plan --> object (409: ours?) --> what runs beside it, ready --> its Secret, and it begins
watch:  informers' memory --> verdict; a request only to make sure that an object is gone
cancel: delete in the foreground, the pods with their grace, until they are gone
remove: the object, or its time to live begins
```

Names are derived from the item, labels find everything again, and nothing is kept in memory that
the cluster does not have.
"""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import anyio
import msgspec
import structlog

from launch_async.adapters.runners.kubernetes import making
from launch_async.adapters.runners.kubernetes.beside import wait_ready
from launch_async.adapters.runners.kubernetes.clusters import Clusters, Connect
from launch_async.adapters.runners.kubernetes.event_looks import EventLooks
from launch_async.adapters.runners.kubernetes.facts import (
    BACKEND,
    facts_of,
    found_run,
    handle_of,
)
from launch_async.adapters.runners.kubernetes.followed import FollowedLogs
from launch_async.adapters.runners.kubernetes.informer import Pace
from launch_async.adapters.runners.kubernetes.logs import read_tail
from launch_async.adapters.runners.kubernetes.looks import Looks, check_alone, trace_of
from launch_async.adapters.runners.kubernetes.names import label_value
from launch_async.adapters.runners.kubernetes.objects import Event, Pod
from launch_async.adapters.runners.kubernetes.plans import CodeFetches, Plan, Planner
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.pulls import REFRESH_SECONDS, PullLogins
from launch_async.adapters.runners.kubernetes.searches import Searches
from launch_async.adapters.runners.kubernetes.spots import Spots
from launch_async.adapters.runners.kubernetes.stopping import Stopper, end_left
from launch_async.adapters.runners.kubernetes.watches import Station, Watches
from launch_async.domain.errors import NotBegun, Unavailable
from launch_async.domain.run import FoundRun, RunEnd, RunHandle, RunState, RunStatus
from launch_async.ports.backends import BackendView
from launch_async.ports.images import RegistryLogins
from launch_async.ports.runner import LaunchOrder

_STARTING_SECONDS = 10.0
"""Between two looks at what has not begun: what is said of it changes with time alone."""
_RETRY_SECONDS = 15.0
_SURE_SECONDS = 300.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class KubernetesRunner:
    """Implements `ports.runner.Runner` and `Rehearsing` for images in clusters.

    `find` looks where the folder's notes say, and if it `searches`, in `namespaces` and the agent's
    own one for Jobs and `kinds` (apiVersion and kind) too.
    """

    name = BACKEND

    def __init__(
        self,
        *,
        connect: Connect,
        folder: Path,
        policy: KubernetesPolicy | None = None,
        logins: RegistryLogins | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
        code: CodeFetches | None = None,
        searches: bool = True,
        namespaces: Sequence[str] = (),
        kinds: Sequence[tuple[str, str]] = (),
        pace: Pace | None = None,
    ) -> None:
        self._clusters = Clusters(connect)
        self._spots = Spots(folder)
        self._watches = Watches(pace)
        self._pulls = PullLogins(logins, refresh_seconds=refresh_seconds)
        self._planner = Planner(self._clusters, policy or KubernetesPolicy(), self._pulls, code)
        self._searches = Searches(
            self._clusters,
            self._spots,
            configured=searches,
            namespaces=namespaces,
            kinds=kinds,
        )
        self._logs = FollowedLogs(self._watches)
        self._stopper = Stopper(self._watches, self._logs)
        self._looks = Looks(self._clusters, self._watches, self._stopper)
        self._events = EventLooks()
        self._warned: dict[str, str] = {}

    async def check(self) -> None:
        """Whether the agent's own cluster answers."""
        await self._clusters.check()

    async def rehearse(self, order: LaunchOrder) -> Sequence[str]:
        """A dry run on the API server, with all its admission rules."""
        return await making.rehearse(await self._planner.plan(order, rehearsal=True))

    async def launch(self, order: LaunchOrder) -> RunHandle:
        """Make the run's object and all that belongs to it, or find them."""
        plan = await self._planner.plan(order)
        spot, manifest = plan.spot, plan.manifest
        station = self._watches.station(spot, plan.cluster, order.identity)
        try:
            await station.synced()  # what cannot be watched is not begun
        except Unavailable as error:
            raise NotBegun(str(error), retry_after_seconds=error.retry_after_seconds) from error
        await self._spots.note(spot)
        check_alone(station, order)
        async with plan.cluster.starts:
            made = await making.begin(plan, order)
        station.born(made.launched)
        await self._finish(plan, order, made, station)
        uid = made.launched.metadata.uid
        station.whole.add(uid)
        warnings = [*manifest.warnings]
        if made.warnings:
            warnings.append(f"The cluster warns: {'; '.join(made.warnings)}")
        if warnings:
            self._warned[uid] = "; ".join(warnings)
        self._pulls.note(uid, plan.logins)
        who = {"item": order.item_id, "run": order.run.run_id, "queue": order.queue.name}
        said = "run started" if made.fresh else "run found"
        log.info(said, kind=manifest.kind, namespace=manifest.namespace, name=manifest.name, **who)
        return handle_of(spot, made.launched.metadata, order.identity, order.origin)

    async def _finish(
        self, plan: Plan, order: LaunchOrder, made: making.Made, station: Station
    ) -> None:
        """What runs beside it is waited for while its pods wait for their Secret."""
        item = label_value(order.item_id)
        try:
            if plan.services and plan.wait_seconds and not made.whole:
                async with making.given_up(plan, made):
                    await wait_ready(
                        self._watches,
                        station,
                        plan.services,
                        item=item,
                        within_seconds=plan.wait_seconds,
                    )
            async with plan.cluster.starts:
                await making.finish(plan, order, made)
        except Unavailable:
            raise
        except BaseException:
            station.forget(item, made.launched.metadata.uid)
            raise

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        """Changes as the informers tell of them; needs `serve` to run."""
        facts = facts_of(handle)
        shown: RunStatus | None = None
        events: tuple[Event, ...] = ()
        look = self._events.begin()
        with self._watches.follow(facts.item) as bell:
            while True:
                status = await self._looks.status(facts, events)
                if look.is_due(status):
                    events = await look.of(await self._looks.station(facts), facts.item, facts.uid)
                    continue
                if status != shown:
                    if status.end is not None:
                        _say_ended(handle, status.end)
                    warning = status.warning or self._warned.pop(facts.uid, "")
                    yield msgspec.structs.replace(status, warning=warning)
                if status.end is not None:
                    return
                shown = status
                if status.state is RunState.STARTING:
                    await self._pulls.refresh(await self._looks.station(facts), facts)
                with anyio.move_on_after(_PAUSES.get(status.state, _SURE_SECONDS)):
                    await bell.wait()

    async def cancel(self, handle: RunHandle, *, within_seconds: float) -> None:
        """Delete it; its pods get SIGTERM now and SIGKILL after `within_seconds`."""
        facts = facts_of(handle)
        log.info("run is told to stop", run=handle.run_id, within_seconds=within_seconds)
        await self._stopper.stop(
            await self._looks.station(facts), facts, within_seconds=within_seconds
        )

    async def log_tail(self, handle: RunHandle, *, lines: int) -> tuple[str, ...]:
        """The last lines of each container; of a run that was stopped here, what was kept."""
        facts = facts_of(handle)
        station = await self._looks.station(facts)
        if station.see(facts.uid) is not None:
            pods = station.pods.there(facts.item)
            if tail := await read_tail(station.cluster.api, pods, lines=lines):
                return tail
        return self._stopper.last_lines(facts.uid, lines=lines)

    async def logs(self, handle: RunHandle) -> AsyncGenerator[bytes, None]:
        """All containers' output; the lines name their pod and container if there are several."""
        facts = facts_of(handle)
        station = await self._looks.station(facts)
        if station.see(facts.uid) is not None:
            async for piece in self._logs.follow(station, facts.item, facts.uid):
                yield piece

    async def find(self, identity: str) -> Sequence[FoundRun]:
        """All objects of `identity` at all places that are remembered or configured."""
        found: list[FoundRun] = []
        for spot in await self._searches.spots():
            cluster = await self._clusters.reach(spot.cluster)
            station = self._watches.station(spot, cluster, identity)
            await station.synced()
            for launched in tuple(station.informer.objects().values()):
                meta = launched.metadata
                controlled = any(one.controller for one in meta.owner_references or ())
                if station.see(meta.uid) is None or (isinstance(launched, Pod) and controlled):
                    continue
                if meta.label().item:
                    trace = await trace_of(station, meta.name, meta.uid)
                    found.append(found_run(spot, meta, trace, identity))
        return tuple(found)

    async def remove(self, handle: RunHandle) -> None:
        """Let the object go: a Job when its queue wants it, all others at once."""
        facts = facts_of(handle)
        station = await self._looks.station(facts)
        await end_left(station, facts)
        await making.let_go(station, facts.name, facts.uid)
        station.forget(facts.item, facts.uid)
        self._stopper.forget(facts.uid)
        self._pulls.forget(facts.uid)
        self._warned.pop(facts.uid, None)

    async def serve(self) -> None:
        """The lists and watches of all places, until cancelled."""
        await self._watches.serve()

    def backends(self) -> Sequence[BackendView]:
        """The clusters, for metrics."""
        return self._clusters.views(self._watches.why_stale)

    async def close(self) -> None:
        """Close the connections; runs go on."""
        await self._clusters.close()


_PAUSES = {RunState.STARTING: _STARTING_SECONDS, RunState.UNKNOWN: _RETRY_SECONDS}


def _say_ended(handle: RunHandle, end: RunEnd) -> None:
    log.info("run ended", run=handle.run_id, exit_code=end.exit_code, detail=end.detail)
