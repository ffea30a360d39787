"""How a run is: from what the watches have told, and a request only to make sure."""

from collections.abc import Sequence

import anyio

from launch_async.adapters.runners.kubernetes.clusters import Clusters
from launch_async.adapters.runners.kubernetes.event_looks import with_events
from launch_async.adapters.runners.kubernetes.facts import Facts
from launch_async.adapters.runners.kubernetes.late_pods import are_late, catch_up
from launch_async.adapters.runners.kubernetes.making import is_whole
from launch_async.adapters.runners.kubernetes.names import label_value
from launch_async.adapters.runners.kubernetes.objects import Event
from launch_async.adapters.runners.kubernetes.states import unseen_end
from launch_async.adapters.runners.kubernetes.stopping import Stopper, stopped_end
from launch_async.adapters.runners.kubernetes.verdicts import Launched, judge, judge_gone
from launch_async.adapters.runners.kubernetes.watches import Seen, Station, Watches, now, type_of
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.run import RunEnd, RunState, RunStatus, Trace
from launch_async.ports.runner import LaunchOrder
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

_GONE_AGAIN_SECONDS = 3.0
"""Between two looks that must both say "not found" before we believe it."""


class Looks:
    """At all runs of one agent; `stopper` knows which of them we have stopped ourselves."""

    def __init__(self, clusters: Clusters, watches: Watches, stopper: Stopper) -> None:
        self._clusters = clusters
        self._watches = watches
        self._stopper = stopper

    async def station(self, facts: Facts) -> Station:
        """Where this run is watched.

        Raises:
            Unavailable: its cluster cannot be reached as configured.
        """
        cluster = await self._clusters.reach(facts.spot.cluster)
        return self._watches.station(facts.spot, cluster, facts.identity)

    async def status(self, facts: Facts, events: Sequence[Event]) -> RunStatus:
        """From memory; that an object is gone counts only when said twice."""
        try:
            station = await self.station(facts)
        except Unavailable as error:
            return RunStatus(state=RunState.UNKNOWN, detail=str(error))
        if station.why_not_fresh:
            return RunStatus(state=RunState.UNKNOWN, detail=station.why_not_fresh)
        seen = station.see(facts.uid)
        if seen is None:
            return await self._ask(station, facts)
        status = self._judge(station, seen, facts, events)
        if seen.there and are_late(station, station.pods.of(facts.item), status):
            try:
                await catch_up(station, facts.item)
            except (KubeRefused, Unavailable) as error:
                return RunStatus(state=RunState.UNKNOWN, detail=str(error))
            status = self._judge(station, seen, facts, events)
        if not seen.there and status.end is not None and status.end.lost:
            return await self._ask(station, facts, once_told=True)
        return status

    def _judge(
        self, station: Station, seen: Seen, facts: Facts, events: Sequence[Event]
    ) -> RunStatus:
        pods = station.pods.of(facts.item)
        stopped = self._stopper.has_stopped(facts.uid)
        if seen.there:
            status = with_events(judge(seen.launched, pods, events=events, now=now()), events)
            if status.end is None or not stopped:
                return status
            if station.pods.there(facts.item):  # its end is that of its programs
                return RunStatus(state=RunState.RUNNING)
        if stopped:
            return _ended(stopped_end(pods))
        return _ended(judge_gone(seen.launched, pods, now=now(), unseen=seen.unseen))

    async def _ask(self, station: Station, facts: Facts, *, once_told: bool = False) -> RunStatus:
        """The API server itself, of an object that no watch has told of, or that a list lacks."""
        try:
            found = None if once_told else await _get(station, facts)
            if found is None:
                await anyio.sleep(_GONE_AGAIN_SECONDS)
                found = await _get(station, facts)
        except (Unavailable, KubeRefused) as error:
            return RunStatus(state=RunState.UNKNOWN, detail=str(error))
        if found is not None:
            station.born(found)
            return judge(found, station.pods.of(facts.item), now=now())
        pods = station.pods.of(facts.item)
        if self._stopper.has_stopped(facts.uid):
            return _ended(stopped_end(pods))
        return _ended(unseen_end())


async def _get(station: Station, facts: Facts) -> Launched | None:
    """The run's object, as the API server has it; None: it has none."""
    try:
        content = await station.cluster.api.get(station.spot.path(facts.name))
    except KubeRefused as error:
        if not error.not_found:
            raise
        return None
    launched = decoded(content, type_of(station.spot.kind))
    return launched if launched.metadata.uid == facts.uid else None


async def trace_of(station: Station, name: str, uid: str) -> Trace:
    """How far an object came. The API server is asked once at most of each that is whole.

    Raises:
        Unavailable: the API server does not answer, or does not let us.
    """
    seen = station.see(uid)
    if seen is None or not seen.there:
        return Trace.ENDED
    item = seen.launched.metadata.label().item
    status = judge(seen.launched, station.pods.of(item), now=now())
    if status.end is not None:
        return Trace.ENDED
    if status.state is RunState.STARTING and uid not in station.whole:
        if not await is_whole(station.cluster, station.spot.namespace, name):
            return Trace.PREPARED
        station.whole.add(uid)
    return Trace.ALIVE


def check_alone(station: Station, order: LaunchOrder) -> None:
    """One run is never twice at once.

    Raises:
        ItemError: it still runs for another item.
    """
    run, item = label_value(order.run.run_id), label_value(order.item_id)
    for other in station.others(run, item):
        label = other.metadata.label().item
        if judge(other, station.pods.of(label), now=now()).end is None:
            raise ItemError(
                f"Run {order.run.run_id} still runs for another item, {label}: stop it, or give"
                " this item another run id.",
                reason=Reason.LAUNCH_FAILED,
                stage=Stage.RUN,
            )


def _ended(end: RunEnd) -> RunStatus:
    return RunStatus(state=RunState.ENDED, end=end)
