"""One Job of the agent's own that is there: how it does, its Secret, and its end."""

from collections.abc import Iterator, Sequence

import anyio
import structlog

from launch_async.adapters.runners.kubernetes.causes import claim_wanted
from launch_async.adapters.runners.kubernetes.names import label_value
from launch_async.adapters.runners.kubernetes.objects import Event, Job, Pod
from launch_async.adapters.runners.kubernetes.refusals import refused_own
from launch_async.adapters.runners.kubernetes.secret_bodies import own_secret_body
from launch_async.adapters.runners.kubernetes.secret_calls import ensure_secret
from launch_async.adapters.runners.kubernetes.verdicts import judge, judge_gone
from launch_async.adapters.runners.kubernetes.watches import Station, now
from launch_async.domain.errors import Unavailable
from launch_async.domain.run import RunState, RunStatus
from launch_async.ports.cluster_jobs import SecretData
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

_RENEW_SECONDS = 600.0
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 1.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class OwnRun:
    """Known by its name and its uid: another Job may have had the name."""

    def __init__(self, station: Station, job: Job) -> None:
        self.station = station
        self.name = job.metadata.name
        self.uid = job.metadata.uid
        self.item = label_value(self.name)

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

    def claim_wanted(self) -> str:
        """The persistent volume claim that is not there; empty: its pods do not wait for one."""
        return next(filter(None, map(claim_wanted, self.pods())), "")

    async def give(self, secret: SecretData) -> None:
        """Its Secret, or what is in it by now.

        Raises:
            Unavailable: the cluster or whoever knows the content does not answer, or refuses it.
        """
        namespace = self.station.spot.namespace
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self.name, "uid": self.uid}
        body = own_secret_body(namespace, self.name, await secret(), owner=owner)
        try:
            await ensure_secret(self.station.cluster.api, body)
        except KubeRefused as error:
            raise refused_own(error, "Secret", namespace) from error

    async def renew(self, secret: SecretData) -> None:
        """Its Secret, for as long as it runs: it may last longer than a token."""
        while True:
            await anyio.sleep(_RENEW_SECONDS)
            try:
                await self.give(secret)
            except Unavailable as error:
                log.warning("logins of a job are not renewed", name=self.name, why=str(error))

    async def let_go(self, *, wait: bool) -> None:
        """Delete it; with `wait` until its pods are gone, which it is only after."""
        api, path = self.station.cluster.api, self.station.spot.path(self.name)
        waits = pauses()
        try:
            await api.delete(path, propagation="Foreground" if wait else "Background", uid=self.uid)
            while wait:
                await anyio.sleep(next(waits))
                found = await find_job(self.station, self.name)
                wait = found is not None and found.metadata.uid == self.uid
        except (KubeRefused, Unavailable) as error:
            if isinstance(error, KubeRefused) and (error.not_found or error.conflict):
                return
            log.warning("a job stays in the cluster for a while", name=self.name, why=str(error))


async def find_job(station: Station, name: str) -> Job | None:
    """As the API server has it; None: there is none of this name.

    Raises:
        Unavailable: the API server does not answer, or does not let us.
    """
    try:
        return decoded(await station.cluster.api.get(station.spot.path(name)), Job)
    except KubeRefused as error:
        if error.not_found:
            return None
        raise refused_own(error, "Job", station.spot.namespace) from error


def pauses() -> Iterator[float]:
    """Longer and longer ones, without end."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)
