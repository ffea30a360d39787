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
from launch_async.adapters.runners.kubernetes.event_looks import (
    AGAIN_SECONDS,
    PATIENCE_SECONDS,
    EventLooks,
)
from launch_async.adapters.runners.kubernetes.kinds import Kind
from launch_async.adapters.runners.kubernetes.names import (
    IDENTITY_LABEL,
    ITEM_LABEL,
    MANAGED_BY,
    MANAGED_LABEL,
    label_value,
)
from launch_async.adapters.runners.kubernetes.objects import Event, Job, Pod
from launch_async.adapters.runners.kubernetes.own_log import OwnLog
from launch_async.adapters.runners.kubernetes.own_secret import give_secret
from launch_async.adapters.runners.kubernetes.spots import Spot
from launch_async.adapters.runners.kubernetes.verdicts import judge, judge_gone
from launch_async.adapters.runners.kubernetes.watches import Station, Watches, now
from launch_async.domain.errors import ConfigError, Unavailable, gravest
from launch_async.domain.merge import merge
from launch_async.domain.run import RunEnd, RunState, RunStatus, StartCause
from launch_async.kit.bells import Bell
from launch_async.ports.backends import BackendView
from launch_async.ports.cluster_jobs import ClusterJob, Feed, SecretData
from launch_async.ports.images import Say
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

ABOUT_ANNOTATION = "launch-async/about"

_OWNER = {"apiVersion": "batch/v1", "kind": "Job"}
_JOBS = Kind(api_version="batch/v1", kind="Job", plural="jobs", namespaced=True)
_SYNC_SECONDS = 60.0
_START_SECONDS = 300.0
_LOOK_SECONDS = 10.0
_RENEW_SECONDS = 600.0
_LOG_SECONDS = 15.0
"""How long the log of a pod that has ended may take."""
_STOP_SECONDS = 45.0
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 1.0
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
        try:
            await self._clusters.check()
        except ConfigError as error:
            raise Unavailable(str(error)) from error

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
            made = await self._made(station, job, prepare)
            run = _Run(station, job.name, made.metadata.uid)
            try:
                await _give(run, secret)
                end = await self._followed(run, job, secret, feed, say, bell)
                ended = True
            finally:
                with anyio.move_on_after(_STOP_SECONDS, shield=True):
                    await _let_go(run, wait=not ended)
                station.forget(run.item, run.uid)
        return end

    async def _station(self, job: ClusterJob) -> Station:
        try:
            cluster = await self._clusters.get(OWN)
        except ConfigError as error:
            raise Unavailable(str(error)) from error
        spot = Spot(namespace=job.namespace or cluster.api.namespace, kind=_JOBS)
        station = self._watches.station(spot, cluster, self._identity)
        for informer in (station.informer, station.pods.informer):
            with anyio.move_on_after(_SYNC_SECONDS):
                await informer.wait_synced()
                continue
            what = f"{informer.kind.plural} of the namespace {spot.namespace}"
            raise Unavailable(f"{what} cannot be listed: {informer.why}")
        return station

    async def _made(
        self, station: Station, job: ClusterJob, prepare: Callable[[], Awaitable[None]]
    ) -> Job:
        """The Job of this name: an earlier life's, else a new one once that is gone."""
        pause = _FIRST_PAUSE_SECONDS
        until = anyio.current_time() + _SYNC_SECONDS
        while True:
            found = await _find(station, job.name)
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
            await anyio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        station.born(found)
        return found

    async def _create(self, station: Station, job: ClusterJob) -> Job | None:
        """None: one of this name is there by now."""
        try:
            content = await station.cluster.api.create(station.spot.path(), self._body(job))
        except KubeRefused as error:
            if error.exists:
                return None
            raise _refused(error, station.spot.namespace) from error
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
            "apiVersion": _JOBS.api_version,
            "kind": _JOBS.kind,
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
        run: "_Run",
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
                        tasks.start_soon(_renew, run, secret, name=f"logins of {run.name}")
                    ends.append(await self._end_of(run, say, bell))
                    if printed.has_begun():
                        with anyio.move_on_after(_LOG_SECONDS):
                            await printed.done.wait()
                    tasks.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise gravest(errors) from None
        return ends[0]

    async def _end_of(self, run: "_Run", say: Say, bell: Bell) -> RunEnd:
        say = _once_each(say)
        held_up_at = math.inf
        events: tuple[Event, ...] = ()
        ask_at = anyio.current_time() + PATIENCE_SECONDS
        while True:
            status, time = run.look(events), anyio.current_time()
            if status.end is not None:
                return status.end
            if status.state is not RunState.STARTING:
                held_up_at = math.inf
                if status.state is RunState.UNKNOWN:
                    say(f"the cluster does not say how it is: {status.detail}")
            elif time >= ask_at:
                events = await self._events.of(run.station, run.item, run.uid)
                ask_at = time + AGAIN_SECONDS
                continue
            else:
                say(f"waiting for the cluster: {status.detail}")
                held_up_at = min(held_up_at, time) if status.cause in _HOPELESS else math.inf
            if time - held_up_at >= self._start_seconds:
                msg = f"The Job {run.name} does not begin: {status.detail}."
                raise Unavailable(msg)
            patience = min(_LOOK_SECONDS, held_up_at + self._start_seconds - time)
            with anyio.move_on_after(patience):
                await bell.wait()


class _Run:
    """One Job that is there."""

    def __init__(self, station: Station, name: str, uid: str) -> None:
        self.station = station
        self.name = name
        self.uid = uid
        self.item = label_value(name)

    @property
    def path(self) -> str:
        return self.station.spot.path(self.name)

    def pods(self) -> Sequence[Pod]:
        """Its own, also those that are gone; an earlier Job of the name may have left some."""
        return tuple(
            pod
            for pod in self.station.pods.of(self.item)
            if any(one.uid == self.uid for one in pod.metadata.owner_references or ())
        )

    def look(self, events: Sequence[Event]) -> RunStatus:
        """From memory."""
        why = self.station.why_not_fresh
        if why:
            return RunStatus(state=RunState.UNKNOWN, detail=why)
        seen = self.station.see(self.uid)
        if seen is None:
            return RunStatus(state=RunState.UNKNOWN, detail="its Job is not listed")
        if seen.there:
            return judge(seen.launched, self.pods(), events=events, now=now())
        end = judge_gone(seen.launched, self.pods(), now=now())
        return RunStatus(state=RunState.ENDED, end=end)


def _once_each(say: Say) -> Say:
    """Without what was said just before."""
    last = ""

    def changed(text: str) -> None:
        nonlocal last
        if text != last:
            say(text)
        last = text

    return changed


async def _find(station: Station, name: str) -> Job | None:
    try:
        return decoded(await station.cluster.api.get(station.spot.path(name)), Job)
    except KubeRefused as error:
        if error.not_found:
            return None
        raise _refused(error, station.spot.namespace) from error


async def _give(run: _Run, secret: SecretData | None) -> None:
    if secret is None:
        return
    data = await secret()
    try:
        await give_secret(
            run.station.cluster.api,
            run.station.spot.namespace,
            run.name,
            data,
            owner={**_OWNER, "name": run.name, "uid": run.uid},
        )
    except KubeRefused as error:
        raise _refused(error, run.station.spot.namespace, what="Secrets") from error


async def _renew(run: _Run, secret: SecretData) -> None:
    """A build may last longer than a token."""
    while True:
        await anyio.sleep(_RENEW_SECONDS)
        try:
            await _give(run, secret)
        except Unavailable as error:
            log.warning("logins of a job are not renewed", name=run.name, why=str(error))


async def _let_go(run: _Run, *, wait: bool) -> None:
    """Delete it; with `wait` until its pods are gone, which it is only after."""
    api = run.station.cluster.api
    pause = _FIRST_PAUSE_SECONDS
    try:
        await api.delete(run.path, propagation="Foreground" if wait else "Background", uid=run.uid)
        while wait:
            await anyio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            found = await _find(run.station, run.name)
            wait = found is not None and found.metadata.uid == run.uid
    except (KubeRefused, Unavailable) as error:
        if isinstance(error, KubeRefused) and (error.not_found or error.conflict):
            return
        log.warning("a job stays in the cluster for a while", name=run.name, why=str(error))


def _refused(error: KubeRefused, namespace: str, what: str = "Jobs") -> Unavailable:
    if error.forbidden:
        remedy = f"Let the agent's service account make {what} in the namespace {namespace}."
    elif error.not_found:
        remedy = f"Make the namespace {namespace}, or name another."
    else:
        remedy = "Correct the builder's settings."
    return Unavailable(f"The cluster does not take a build: {error.message}. {remedy}")
