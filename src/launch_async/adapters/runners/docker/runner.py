"""Runs images as containers on one Docker engine; they outlive the agent and are found by label."""

import math
from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import anyio
import structlog
from aiodocker.exceptions import DockerError

from launch_async.adapters.runners.docker.engine import Engine
from launch_async.adapters.runners.docker.events import ContainerEvents
from launch_async.adapters.runners.docker.images import ensure_image
from launch_async.adapters.runners.docker.looks import Looks
from launch_async.adapters.runners.docker.options import (
    IDENTITY_LABEL,
    ITEM_LABEL,
    NO_OPENING,
    RUN_LABEL,
    container_body,
    platform,
    pull_policy,
)
from launch_async.adapters.runners.docker.policy import DockerPolicy
from launch_async.adapters.runners.docker.shelf import ImageShelf
from launch_async.adapters.runners.docker.states import (
    BACKEND,
    found_run,
    handle_of,
    maybe_out_of_memory,
    status_of,
)
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.ids import RunId
from launch_async.domain.run import (
    FoundRun,
    RunEnd,
    RunHandle,
    RunState,
    RunStatus,
)
from launch_async.kit.keep import Keep
from launch_async.kit.names import plain_name
from launch_async.ports.backends import BackendView
from launch_async.ports.images import RegistryLogins
from launch_async.ports.retention import Pruned
from launch_async.ports.runner import ImageWork, LaunchOrder

log = structlog.get_logger()

_CONCURRENT_STARTS = 4
"""A start is CPU of the engine and the kernel: more at once only make each slower."""
_CONCURRENT_PULLS = 3
_GONE_AGAIN_SECONDS = 3.0
"""Between two looks that must both say "no such container" before we believe it."""
_OOM_AGAIN_SECONDS = 1.0
"""The engine hears of a lack of memory beside the end that it causes, and not always before it."""
_RETRY_SECONDS = 15.0
_STOP_MARGIN_SECONDS = 30.0
_NAME_ATTEMPTS = 50
_NAME_PAUSE_SECONDS = 0.2
_LIVE = frozenset({"running", "paused", "restarting"})


class DockerRunner:
    """Implements `ports.runner.Runner` for images on a Docker engine.

    `docker_host`: as DOCKER_HOST, which is used when it is None, else the usual socket. `shelf`: a
    folder for notes, and how much of the images that were made here stays on the engine.
    """

    name = BACKEND

    def __init__(
        self,
        *,
        docker_host: str | None = None,
        policy: DockerPolicy = NO_OPENING,
        logins: RegistryLogins | None = None,
        shelf: tuple[Path, Keep] | None = None,
        min_free_bytes: int = 0,
        pull_timeout_seconds: float = 1800.0,
        list_seconds: float = 15.0,
    ) -> None:
        self._engine = Engine(docker_host)
        self._looks = Looks(self._engine)
        self._events = ContainerEvents(self._engine, list_seconds=list_seconds)
        self._shelf = None if shelf is None else ImageShelf(self._engine, *shelf)
        self._min_free_bytes = min_free_bytes
        self._policy = policy
        self._logins = logins
        self._pull_timeout_seconds = pull_timeout_seconds
        self._starts = anyio.CapacityLimiter(_CONCURRENT_STARTS)
        self._pulls = anyio.CapacityLimiter(_CONCURRENT_PULLS)
        self._stopped_by_us: set[str] = set()

    async def check(self) -> None:
        """Whether the engine answers, and has room on its disk."""
        await self._engine.ping()
        free = await self._engine.free_bytes() if self._min_free_bytes else None
        if free is not None and free < self._min_free_bytes:
            raise Unavailable(
                f"The Docker engine's disk has {free >> 20} MB left, less than the"
                f" {self._min_free_bytes >> 20} MB of agent.docker.min_free_mb: make room."
            )

    async def launch(self, order: LaunchOrder) -> RunHandle:
        """Start the run's container, or find it; one that was created only is started."""
        if not isinstance(order.work, ImageWork):
            raise ItemError(
                "local-container queues run images, not code: use an image job,"
                " or a local-process queue.",
                reason=Reason.TARGET_UNSUPPORTED,
            )
        body = container_body(order, order.work, self._policy)
        pull = pull_policy(order, self._policy)
        name = f"launch-{plain_name(order.run.run_id)}"
        found = await self._earlier(name, order)
        if found is None:
            async with self._pulls:
                await ensure_image(
                    self._engine,
                    order.work.image,
                    platform=platform(order),
                    pull=pull,
                    logins=self._logins,
                    within_seconds=self._pull_timeout_seconds,
                )
        async with self._starts:
            if found is None:
                found = await self._create(name, body, order)
            fresh = found["State"]["Status"] == "created"
            if fresh:
                await self._start(found["Id"], order, order.work.code)
        who = {"item": order.item_id, "run": order.run.run_id, "queue": order.queue.name}
        log.info("run started" if fresh else "run found", container=name, **who)
        image = (found["Config"]["Image"], found["Image"])
        if self._shelf is not None:
            await self._shelf.note_use(found["Image"])
        return handle_of(found["Id"], name, image, order.run.run_id, order.item_id)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        """Changes as the engine's events tell of them; needs `serve` to run."""
        container_id = str(handle.data["container_id"])
        shown: RunStatus | None = None
        with self._events.follow(container_id) as bell:
            while True:
                status = await self._look(container_id)
                if status != shown:
                    if status.end is not None:
                        self._say_ended(handle, status.end)
                    yield status
                if status.end is not None:
                    return
                shown = status
                unknown = status.state is RunState.UNKNOWN
                with anyio.move_on_after(_RETRY_SECONDS if unknown else math.inf):
                    await bell.wait()

    async def cancel(self, handle: RunHandle, *, within_seconds: float) -> None:
        """SIGTERM, then SIGKILL by the engine after `within_seconds`."""
        container = self._container(handle)
        self._stopped_by_us.add(container.id)
        log.info("run is told to stop", run=handle.run_id, within_seconds=within_seconds)
        grace = math.ceil(within_seconds)
        try:
            with self._engine.answering(), anyio.fail_after(grace + _STOP_MARGIN_SECONDS):
                await container.stop(t=grace)
        except DockerError as error:
            if error.status != 404:  # gone already
                raise Unavailable(f"The Docker engine did not stop it: {error.message}") from error

    async def log_tail(self, handle: RunHandle, *, lines: int) -> tuple[str, ...]:
        """The last lines of stdout and stderr; their order among each other is the engine's."""
        return await self._engine.log_tail(str(handle.data["container_id"]), lines=lines)

    def logs(self, handle: RunHandle) -> AsyncGenerator[bytes, None]:
        """As the engine's log driver has them, both streams mixed."""
        return self._engine.logs(str(handle.data["container_id"]))

    async def find(self, identity: str) -> Sequence[FoundRun]:
        """Containers of `identity`, in one list."""
        listed = await self._engine.labelled(f"{IDENTITY_LABEL}={identity}")
        return tuple(
            found_run(one) for one in listed if {ITEM_LABEL, RUN_LABEL} <= set(one["Labels"])
        )

    async def remove(self, handle: RunHandle) -> None:
        """Remove the container and its anonymous volumes; one that runs is killed."""
        container = self._container(handle)
        self._stopped_by_us.discard(container.id)
        await self._delete(container.id)

    async def serve(self) -> None:
        """The engine's event stream and the slow list behind it, until cancelled."""
        await self._events.serve()

    async def prune(self, open_runs: Set[RunId]) -> Pruned:
        """Images that were made here and that nobody has run for long."""
        return Pruned() if self._shelf is None else await self._shelf.prune(open_runs)

    def backends(self) -> Sequence[BackendView]:
        """The engine, for metrics."""
        return [self._engine.bulkhead.view()]

    async def close(self) -> None:
        """Close the connections; containers go on."""
        await self._engine.close()

    def _container(self, handle: RunHandle) -> Any:
        return self._engine.client().containers.container(str(handle.data["container_id"]))

    async def _earlier(self, name: str, order: LaunchOrder) -> dict[str, Any] | None:
        """What an earlier call or life made for this item; an ended one of another item is removed.

        Raises:
            ItemError: the name is somebody else's, or the run still runs for another item.
        """
        found = await self._engine.inspect(name)
        if found is None:
            return None
        labels: Mapping[str, str] = found["Config"].get("Labels") or {}
        if labels.get(RUN_LABEL) != order.run.run_id:
            raise _launch_failed(
                f"A container named {name} that launch-async did not make is in the way: remove it."
            )
        if labels.get(ITEM_LABEL) == order.item_id:
            return found
        if found["State"]["Status"] in _LIVE:
            raise _launch_failed(
                f"Run {order.run.run_id} still runs for another item, {labels.get(ITEM_LABEL)}:"
                " stop it, or give this item another run id."
            )
        await self._delete(found["Id"])
        return None

    async def _create(self, name: str, body: dict[str, Any], order: LaunchOrder) -> dict[str, Any]:
        for _ in range(_NAME_ATTEMPTS):
            taken = not await self._created(name, body)
            found = await self._earlier(name, order)
            if found is not None:
                return found
            if taken:  # another call was quicker: the engine knows the name before the container
                await anyio.sleep(_NAME_PAUSE_SECONDS)
        raise Unavailable(f"The engine keeps the name {name} taken, but shows no such container.")

    async def _created(self, name: str, body: dict[str, Any]) -> bool:
        try:
            with self._engine.answering():
                await self._engine.client().containers.create(body, name=name)
        except DockerError as error:
            if error.status == 409:
                return False
            if error.status == 404:
                raise ItemError(
                    f"Image {body['Image']} is not on the engine: {error.message}",
                    reason=Reason.IMAGE_NOT_FOUND,
                ) from error
            raise _launch_failed(f"Docker refused the container: {error.message}") from error
        return True

    async def _start(self, container_id: str, order: LaunchOrder, code: Path | None) -> None:
        try:
            if code is not None:
                await self._engine.put_code(container_id, code)
            with self._engine.reaching():
                await self._engine.client().containers.container(container_id).start()
        except DockerError as error:
            with anyio.CancelScope(shield=True):
                await self._delete(container_id)
            raise _launch_failed(
                f"Docker could not start {order.run.run_id}: {error.message}"
            ) from error

    async def _delete(self, container_id: str) -> None:
        try:
            with self._engine.answering():
                client = self._engine.client()
                await client.containers.container(container_id).delete(force=True, v=True)
        except DockerError as error:
            if error.status not in {404, 409}:  # gone, or being removed by somebody
                raise Unavailable(f"Docker did not remove it: {error.message}") from error

    async def _look(self, container_id: str) -> RunStatus:
        """A direct look; "no such container" counts only when said twice."""
        try:
            state = await self._looks.state(container_id)
            if state is None:
                await anyio.sleep(_GONE_AGAIN_SECONDS)
                state = await self._looks.state(container_id)
            stopped_by_us = container_id in self._stopped_by_us
            if state is not None and maybe_out_of_memory(state) and not stopped_by_us:
                await anyio.sleep(_OOM_AGAIN_SECONDS)
                state = await self._looks.state(container_id) or state
        except (Unavailable, DockerError) as error:
            return RunStatus(state=RunState.UNKNOWN, detail=str(error))
        if state is None:
            gone = RunEnd(
                exit_code=None,
                reason=Reason.VANISHED,
                lost=True,
                detail="the container was removed by somebody else",
            )
            return RunStatus(state=RunState.ENDED, end=gone)
        return status_of(state, stopped_by_us=stopped_by_us)

    def _say_ended(self, handle: RunHandle, end: RunEnd) -> None:
        log.info("run ended", run=handle.run_id, exit_code=end.exit_code, detail=end.detail)


def _launch_failed(text: str) -> ItemError:
    return ItemError(text, reason=Reason.LAUNCH_FAILED, stage=Stage.RUN)
