"""Jobs that the agent runs for itself: made or found, followed to the end, and removed.

```
run: there already (an earlier life's)? --no--> prepare --> create --> its Secret, owned by it
       |                                                                |
       +--------------------------> log, status <-----------------------+
                                        |
                     ended: deleted     |     cancelled: deleted, and its pods are waited for
```

They bear another identity than the agent's runs, so that neither is looked for among the other.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import structlog

from launch_async.adapters.runners.kubernetes.clusters import OWN, Clusters, Connect
from launch_async.adapters.runners.kubernetes.event_looks import EventLooks
from launch_async.adapters.runners.kubernetes.kinds import JOBS
from launch_async.adapters.runners.kubernetes.names import (
    IDENTITY_LABEL,
    ITEM_LABEL,
    MANAGED_BY,
    MANAGED_LABEL,
    label_value,
)
from launch_async.adapters.runners.kubernetes.objects import Event, Job
from launch_async.adapters.runners.kubernetes.own_log import OwnLog
from launch_async.adapters.runners.kubernetes.own_run import OwnRun, find_job, pauses
from launch_async.adapters.runners.kubernetes.refusals import refused_own
from launch_async.adapters.runners.kubernetes.spots import Spot
from launch_async.adapters.runners.kubernetes.watches import Station, Watches
from launch_async.domain.errors import Unavailable, gravest
from launch_async.domain.merge import merge
from launch_async.domain.run import RunEnd, RunState, RunStatus, StartCause
from launch_async.kit.bells import Bell
from launch_async.ports.backends import BackendView
from launch_async.ports.cluster_jobs import ClusterJob, Feed, SecretData
from launch_async.ports.images import Say
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

ABOUT_ANNOTATION = "launch-async/about"

_GONE_SECONDS = 60.0
_START_SECONDS = 300.0
_CLAIM_SECONDS = 10.0
"""How long for a persistent volume claim that is not there: a new one is seen at once."""
_LOOK_SECONDS = 10.0
_LOG_SECONDS = 15.0
"""How long the log of a pod that has ended may take."""
_STOP_SECONDS = 45.0
_HOPELESS = frozenset(
    {
        StartCause.IMAGE,
        StartCause.CONFIG,
        StartCause.VOLUME,
        StartCause.CONTAINER,
        StartCause.REFUSED,
    }
)
"""Causes that an operator must mend; for room in the cluster one waits."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class OwnJobs:
    """Implements `ports.cluster_jobs.ClusterJobs` on the agent's own cluster; needs `serve`.

    `start_seconds`: how long a Job may be held up by what only an operator can mend.
    """

    def __init__(
        self, connect: Connect, *, identity: str, start_seconds: float = _START_SECONDS
    ) -> None:
        self._clusters = Clusters(connect)
        self._watches = Watches()
        self._events = EventLooks()
        self._identity = f"own-jobs-{identity}"
        self._start_seconds = start_seconds

    async def serve(self) -> None:
        """List and watch until cancelled."""
        await self._watches.serve()

    async def check(self) -> None:
        """As `ClusterJobs.check`."""
        await self._clusters.check()

    def backends(self) -> Sequence[BackendView]:
        """The cluster, for metrics."""
        return self._clusters.views()

    async def close(self) -> None:
        """Close the connections."""
        await self._clusters.close()

    async def run(
        self,
        job: ClusterJob,
        *,
        prepare: Callable[[], Awaitable[None]],
        secret: SecretData | None,
        feed: Feed,
        say: Say,
    ) -> RunEnd:
        """As `ClusterJobs.run`."""
        station = await self._station(job)
        ended = False
        with self._watches.follow(label_value(job.name)) as bell:
            run = OwnRun(station, await self._made(station, job, prepare))
            try:
                if secret is not None:
                    await run.give(secret)
                end = await self._followed(run, job, secret, feed, say, bell)
                ended = True
            finally:
                with anyio.move_on_after(_STOP_SECONDS, shield=True):
                    await run.let_go(wait=not ended)
                station.forget(run.item, run.uid)
        return end

    async def _station(self, job: ClusterJob) -> Station:
        cluster = await self._clusters.reach(OWN)
        spot = Spot(namespace=job.namespace or cluster.api.namespace, kind=JOBS)
        station = self._watches.station(spot, cluster, self._identity)
        await station.synced()
        return station

    async def _made(
        self, station: Station, job: ClusterJob, prepare: Callable[[], Awaitable[None]]
    ) -> Job:
        """The Job of this name: an earlier life's, else a new one once that is gone."""
        waits = pauses()
        until = anyio.current_time() + _GONE_SECONDS
        while True:
            found = await find_job(station, job.name)
            if found is None:
                await prepare()
                # Once it is sent it may be there: it must be known, to be deleted.
                with anyio.CancelScope(shield=True):
                    found = await self._create(station, job)
                if found is not None:
                    log.info("job started in the cluster", name=job.name, about=job.about)
                    break
            elif not found.metadata.deletion_timestamp:
                self._check_ours(found, station.spot.path(job.name))
                log.info("job found in the cluster", name=job.name, about=job.about)
                break
            if anyio.current_time() > until:
                msg = f"The Job {job.name} of an earlier try is still being deleted."
                raise Unavailable(msg)
            await anyio.sleep(next(waits))
        station.born(found)
        return found

    async def _create(self, station: Station, job: ClusterJob) -> Job | None:
        """None: one of this name is there by now."""
        try:
            content = await station.cluster.api.create(station.spot.path(), self._body(job))
        except KubeRefused as error:
            if error.exists:
                return None
            raise refused_own(error, "Job", station.spot.namespace) from error
        return decoded(content, Job)

    def _body(self, job: ClusterJob) -> dict[str, Any]:
        labels = {
            IDENTITY_LABEL: label_value(self._identity),
            ITEM_LABEL: label_value(job.name),
            MANAGED_LABEL: MANAGED_BY,
        }
        marked = {"labels": {**job.labels, **labels}, "annotations": dict(job.annotations)}
        about = {ABOUT_ANNOTATION: job.about}
        return {
            "apiVersion": JOBS.api_version,
            "kind": JOBS.kind,
            "metadata": merge({"name": job.name, "annotations": about}, marked),
            "spec": merge(job.spec, {"template": {"metadata": {"labels": labels}}}),
        }

    def _check_ours(self, found: Job, path: str) -> None:
        labels = found.metadata.label()
        ours = label_value(self._identity), label_value(found.metadata.name)
        if (labels.identity, labels.item) != ours:
            msg = f"{path} is in the way: it is not this agent's. Remove it."
            raise Unavailable(msg)

    async def _followed(  # noqa: PLR0917
        self,
        run: OwnRun,
        job: ClusterJob,
        secret: SecretData | None,
        feed: Feed,
        say: Say,
        bell: Bell,
    ) -> RunEnd:
        container = job.spec["template"]["spec"]["containers"][0]["name"]
        printed = OwnLog(run.station.cluster.api, container, run.pods, feed)
        ends: list[RunEnd] = []
        try:
            async with anyio.create_task_group() as tasks:
                with self._watches.follow(run.item) as heard:
                    tasks.start_soon(printed.follow, heard, name=f"log of {run.name}")
                    if secret is not None:
                        tasks.start_soon(run.renew, secret, name=f"logins of {run.name}")
                    ends.append(await self._end_of(run, say, bell))
                    if printed.has_begun():
                        with anyio.move_on_after(_LOG_SECONDS):
                            await printed.done.wait()
                    tasks.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise gravest(errors) from None
        return ends[0]

    async def _end_of(self, run: OwnRun, say: Say, bell: Bell) -> RunEnd:
        say, looks = _once_each(say), self._events.begin()
        held_up_at = math.inf
        events: tuple[Event, ...] = ()
        while True:
            status, time = run.look(events), anyio.current_time()
            if status.end is not None:
                return status.end
            if looks.is_due(status):
                events = await looks.of(run.station, run.item, run.uid)
                continue
            if status.state is RunState.STARTING:
                say(f"waiting for the cluster: {status.detail}")
            elif status.state is RunState.UNKNOWN:
                say(f"the cluster does not say how it is: {status.detail}")
            why, within = self._hindrance(run, status)
            held_up_at = min(held_up_at, time) if why else math.inf
            patience = held_up_at + within - time
            if patience <= 0:
                raise Unavailable(f"The Job {run.name} does not begin: {why}")
            with anyio.move_on_after(min(_LOOK_SECONDS, patience)):
                await bell.wait()

    def _hindrance(self, run: OwnRun, status: RunStatus) -> tuple[str, float]:
        """What only an operator can mend, and how long it is waited for; empty: nothing."""
        if status.state is not RunState.STARTING:
            return "", math.inf
        if claim := run.claim_wanted():
            place = f"the namespace {run.station.spot.namespace}"
            why = f"{place} has no persistent volume claim {claim}. Make it there, or correct"
            within = min(_CLAIM_SECONDS, self._start_seconds)
            return f"{why} context-claim or namespace of builder.cluster.", within
        if status.cause in _HOPELESS:
            return f"{status.detail}.", self._start_seconds
        return "", math.inf


def _once_each(say: Say) -> Say:
    """Without what was said just before."""
    last = ""

    def changed(text: str) -> None:
        nonlocal last
        if text != last:
            say(text)
        last = text

    return changed
