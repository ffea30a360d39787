"""What the containers of a run print: the end of it, or all of it while it goes on."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import anyio
import structlog

from launch_async.adapters.runners.kubernetes.containers import main_name
from launch_async.adapters.runners.kubernetes.objects import Pod, PodSpec, PodStatus
from launch_async.domain.errors import Unavailable
from launch_async.kit.tail import ByteTail
from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import KubeRefused

MAX_SOURCES = 20
"""Containers whose logs are read; a run of a thousand pods is read in a log store."""
_READ_SECONDS = 30.0
_AGAIN_SECONDS = 1.0

Feed = Callable[[bytes], Awaitable[None]]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Source:
    """One container's log."""

    def __init__(self, pod: Pod, container: str) -> None:
        self.pod = pod.metadata.name
        self.container = container
        self._path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{self.pod}/log"

    @property
    def key(self) -> tuple[str, str]:
        """Tells it apart from all others of the run."""
        return self.pod, self.container

    @property
    def prefix(self) -> str:
        """Before its lines, where there are several."""
        return f"[{self.pod}/{self.container}] "

    def pieces(
        self, api: KubeCluster, *, lines: int | None = None, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """What it printed, or the last `lines` lines; as `KubeCluster.pieces`."""
        params = {"container": self.container}
        if lines is not None:
            params["tailLines"] = str(lines)
        if follow:
            params["follow"] = "true"
        return api.pieces(self._path, params, idle_seconds=None if follow else _READ_SECONDS)


def sources(pods: Sequence[Pod]) -> Sequence[Source]:
    """Containers of these pods that have begun, the oldest pods and the jobs' own ones first."""
    found: list[Source] = []
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp or ""):
        main = main_name(pod)
        names = [one.name for one in (pod.spec or PodSpec()).containers or ()]
        status = pod.status or PodStatus()
        begun = {
            one.name
            for one in (*(status.container_statuses or ()), *(status.init_container_statuses or ()))
            if one.now().running or one.ended
        }
        failed_inits = [
            one.name
            for one in status.init_container_statuses or ()
            if one.ended and one.ended.exit_code
        ]
        chosen = [*failed_inits, *sorted(names, key=lambda name: name != main)]
        found += [Source(pod, name) for name in chosen if name in begun]
    return found[:MAX_SOURCES]


async def read_tail(api: KubeCluster, pods: Sequence[Pod], *, lines: int) -> tuple[str, ...]:
    """The last lines of each container, one after the other; () when nothing is left."""
    named = sources(pods)
    shown: list[str] = []
    for source in named:
        tail = ByteTail()
        try:
            async with aclosing(source.pieces(api, lines=lines)) as pieces:
                async for piece in pieces:
                    tail.feed(piece)
        except KubeRefused as error:
            if error.forbidden:
                raise Unavailable(f"logs cannot be read: {error.message}") from error
            continue  # the pod is gone, or its node has no log of it
        prefix = source.prefix if len(named) > 1 else ""
        shown += [prefix + line for line in tail.lines(lines)]
    return tuple(shown)


async def follow(
    api: KubeCluster, source: Source, feed: Feed, *, prefixed: bool, lines: int | None = None
) -> None:
    """All that one container prints until it ends; what cannot be had is left out."""
    lined = _Lined(source.prefix if prefixed else "")
    for last in (False, True):
        try:
            async with aclosing(source.pieces(api, lines=lines, follow=True)) as pieces:
                async for piece in pieces:
                    await feed(lined.of(piece))
        except KubeRefused as error:
            if error.forbidden:
                raise Unavailable(f"logs cannot be read: {error.message}") from error
            if last or error.not_found:
                return
        except Unavailable as error:
            log.info("a log broke off", pod=source.pod, why=str(error))
            return
        else:
            return
        await anyio.sleep(_AGAIN_SECONDS)


class _Lined:
    """Puts a prefix before each line of a stream that is cut anywhere."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self._begins = True

    def of(self, piece: bytes) -> bytes:
        if not self._prefix or not piece:
            return piece
        head = self._prefix if self._begins else b""
        self._begins = piece.endswith(b"\n")
        body, end = (piece[:-1], b"\n") if self._begins else (piece, b"")
        return head + body.replace(b"\n", b"\n" + self._prefix) + end
