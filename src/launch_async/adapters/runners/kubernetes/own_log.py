"""All that one container of a Job prints, from its first byte on, however often that breaks off."""

from collections.abc import Callable, Sequence
from contextlib import aclosing

import anyio
import structlog

from launch_async.adapters.runners.kubernetes.containers import NEVER_RAN
from launch_async.adapters.runners.kubernetes.logs import Source
from launch_async.adapters.runners.kubernetes.objects import ContainerStatus, Pod, PodStatus
from launch_async.domain.errors import Unavailable
from launch_async.kit.bells import Bell
from launch_async.ports.cluster_jobs import Feed
from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import KubeRefused

_AGAIN_SECONDS = 1.0
_LOOK_SECONDS = 2.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class OwnLog:
    """`pods` are those of the Job as they are known now; it has one at a time."""

    def __init__(
        self, api: KubeCluster, container: str, pods: Callable[[], Sequence[Pod]], feed: Feed
    ) -> None:
        self._api = api
        self._container = container
        self._pods = pods
        self._feed = feed
        self._fed = 0
        self.done = anyio.Event()
        """All of it was fed."""

    def has_begun(self) -> bool:
        """Whether there is anything to read."""
        return self._begun() is not None

    async def follow(self, bell: Bell) -> None:
        """Feed it, until all is read; rung when something changes.

        Raises:
            Unavailable: logs may not be read.
        """
        while (pod := self._begun()) is None:
            with anyio.move_on_after(_LOOK_SECONDS):
                await bell.wait()
        source = Source(pod, self._container)
        while True:
            try:
                await self._read(source)
                if self._has_ended(source.pod):
                    break
            except KubeRefused as error:
                if error.forbidden:
                    raise Unavailable(f"logs cannot be read: {error.message}") from error
                if error.not_found:
                    break  # it went with its pod
                log.debug("a log is not there yet", pod=source.pod, why=error.message)
            except Unavailable as error:
                log.info("a log broke off", pod=source.pod, why=str(error))
            await anyio.sleep(_AGAIN_SECONDS)
        self.done.set()

    async def _read(self, source: Source) -> None:
        """Feed what follows the bytes that were fed before."""
        passed = 0
        async with aclosing(source.pieces(self._api, follow=True)) as pieces:
            async for piece in pieces:
                new = piece[max(0, self._fed - passed) :]
                passed += len(piece)
                self._fed += len(new)
                if new:
                    await self._feed(new)

    def _begun(self) -> Pod | None:
        for pod in self._pods():
            status = self._status(pod)
            if status is None:
                continue
            ended = status.now().terminated
            if status.now().running or (ended and ended.reason not in NEVER_RAN):
                return pod
        return None

    def _has_ended(self, name: str) -> bool:
        for pod in self._pods():
            status = self._status(pod)
            if pod.metadata.name == name and status is not None:
                return status.now().terminated is not None
        return True

    def _status(self, pod: Pod) -> ContainerStatus | None:
        found = (pod.status or PodStatus()).container_statuses or ()
        return next((one for one in found if one.name == self._container), None)
