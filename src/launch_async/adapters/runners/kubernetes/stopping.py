"""Ending a run: its pods get their grace, its object is deleted, and what they print is kept.

A node that has begun to end a container waits for as long as it was told at first, whatever is
said later. So the pods are deleted with our grace before their owner is, whose deletion would give
them their own. A deleted pod takes its log along: the last lines are read while it ends.
"""

import math
from collections.abc import Sequence

import anyio
import structlog

from launch_async.adapters.runners.kubernetes.containers import end_that_counts
from launch_async.adapters.runners.kubernetes.facts import Facts
from launch_async.adapters.runners.kubernetes.followed import FollowedLogs
from launch_async.adapters.runners.kubernetes.kinds import PODS
from launch_async.adapters.runners.kubernetes.objects import Pod, PodSpec
from launch_async.adapters.runners.kubernetes.watches import Station, Watches
from launch_async.domain.errors import Unavailable
from launch_async.domain.run import RunEnd
from launch_async.wire.kubernetes.errors import KubeRefused

_MARGIN_SECONDS = 30.0
"""Beyond the grace, for nodes that are slow."""
_LOOK_SECONDS = 3.0
_KEPT_LINES = 500
_MAX_KEPT = 200
"""Runs whose last lines are kept because their pods are gone."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Stopper:
    """Stops runs, and remembers which ones and what they said last."""

    def __init__(self, watches: Watches, logs: FollowedLogs) -> None:
        self._watches = watches
        self._logs = logs
        self._stopped: set[str] = set()
        self._kept: dict[str, tuple[str, ...]] = {}

    def has_stopped(self, uid: str) -> bool:
        """Whether this life has stopped the run of this object."""
        return uid in self._stopped

    def last_lines(self, uid: str, *, lines: int) -> tuple[str, ...]:
        """What it printed last, if it was stopped here."""
        return self._kept.get(uid, ())[-lines:] if lines > 0 else ()

    def forget(self, uid: str) -> None:
        """Nobody asks for it any more."""
        self._stopped.discard(uid)
        self._kept.pop(uid, None)

    async def stop(self, station: Station, facts: Facts, *, within_seconds: float) -> None:
        """SIGTERM now, SIGKILL after `within_seconds`; returns when no pod of it is there.

        Raises:
            Unavailable: the API server does not answer, or pods are still there.
        """
        self._stopped.add(facts.uid)
        with (
            self._watches.follow(facts.item) as bell,
            self._logs.keeping(station, facts.item, lines=_KEPT_LINES) as tail,
        ):
            try:
                with anyio.move_on_after(within_seconds + _MARGIN_SECONDS):
                    told: set[str] = set()
                    await _end_pods(station, facts, within_seconds, told)
                    await _delete(station, facts, within_seconds)
                    while station.pods.there(facts.item):
                        await _end_pods(station, facts, within_seconds, told)
                        with anyio.move_on_after(_LOOK_SECONDS):
                            await bell.wait()
            finally:
                self._keep(facts.uid, tail.lines(_KEPT_LINES))
        left = [pod.metadata.name for pod in station.pods.there(facts.item)]
        if left:
            raise Unavailable(f"The cluster has not ended all pods: {', '.join(left[:5])}.")

    def _keep(self, uid: str, lines: tuple[str, ...]) -> None:
        if not lines:
            return
        self._kept[uid] = lines
        while len(self._kept) > _MAX_KEPT:
            del self._kept[next(iter(self._kept))]


def stopped_end(pods: Sequence[Pod]) -> RunEnd:
    """How a run's program took it that we stopped it."""
    ends = [counts[1] for counts in map(end_that_counts, pods) if counts is not None]
    codes = [one.exit_code for one in ends]
    return RunEnd(exit_code=next(filter(None, codes), codes[0] if codes else None))


async def end_left(station: Station, facts: Facts) -> None:
    """End the pods of an object that is gone: who deletes it may spare them (`Orphan`)."""
    seen = station.see(facts.uid)
    if seen is None or not seen.there:
        going = {
            pod.metadata.uid
            for pod in station.pods.there(facts.item)
            if pod.metadata.deletion_timestamp
        }
        await _end_pods(station, facts, _MARGIN_SECONDS, going)


async def _delete(station: Station, facts: Facts, within_seconds: float) -> None:
    grace = math.ceil(within_seconds) if station.spot.kind == PODS else None
    try:
        await station.cluster.api.delete(
            station.spot.path(facts.name), grace_seconds=grace, uid=facts.uid
        )
    except KubeRefused as error:
        if not error.not_found and not error.conflict:  # else it is gone already
            raise Unavailable(f"The cluster did not delete it: {error.message}") from error


async def _end_pods(station: Station, facts: Facts, within_seconds: float, told: set[str]) -> None:
    """In no more time than they may have, and than they want themselves."""
    for pod in station.pods.there(facts.item):
        uid = pod.metadata.uid
        if uid in told:
            continue
        told.add(uid)
        own = (pod.spec or PodSpec()).termination_grace_period_seconds
        grace = math.ceil(within_seconds)
        try:
            await station.cluster.api.delete(
                PODS.path(facts.spot.namespace, pod.metadata.name),
                propagation="Background",
                grace_seconds=grace if own is None else min(grace, own),
                uid=uid,
            )
        except KubeRefused as error:
            if not error.not_found and not error.conflict:
                log.warning("a pod is left to its own grace", why=error.message)
