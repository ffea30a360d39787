"""One event stream for all containers, and a slow list behind it as a safety net.

```
/events ──> die, destroy ─┐
                          ├──> ring the watch of that container ──> it inspects, once
/containers/json ─────────┘    (every 15 s, and twice whenever the stream begins anew)
```
"""

from contextlib import AbstractContextManager, aclosing
from typing import Any

import anyio
import structlog
from aiodocker.exceptions import DockerError

from launch_async.adapters.runners.docker.engine import Engine
from launch_async.adapters.runners.docker.options import RUN_LABEL
from launch_async.domain.errors import Unavailable
from launch_async.kit.bells import Bell, Bells

log = structlog.get_logger()

_KINDS = ["start", "die", "destroy", "oom"]
_ENDED = frozenset({"exited", "dead", "removing"})
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_SUBSCRIBED_SECONDS = 2.0
"""The engine answers a request for events before it subscribes it: what ends between is in neither
the stream nor the first list, so that there is a second one."""


class ContainerEvents:
    """Tells watches when to look at their containers; `serve` does the listening."""

    def __init__(self, engine: Engine, *, list_seconds: float) -> None:
        self._engine = engine
        self._list_seconds = list_seconds
        self._bells = Bells()
        self._lost = False
        self._begun = anyio.Event()

    def follow(self, container_id: str) -> AbstractContextManager[Bell]:
        """A bell for one container, for as long as the block lasts."""
        return self._bells.follow(container_id)

    async def serve(self) -> None:
        """Listen and list until cancelled; an engine that is away is waited for."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, name="docker-events")
            tasks.start_soon(self._list, name="docker-list")

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                stream = self._engine.events(RUN_LABEL, _KINDS)
                async with aclosing(stream) as events:
                    async for event in events:
                        pause = _FIRST_PAUSE_SECONDS if event else pause
                        await self._hear(event)
            except (Unavailable, DockerError, ValueError, KeyError, TypeError) as error:
                self._say_lost(str(error))
            else:
                self._say_lost("the engine ended its event stream")
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _hear(self, event: dict[str, Any]) -> None:
        if event:
            self._bells.ring(event["Actor"]["ID"])
            return
        if self._lost:
            log.info("docker events are back", engine=self._engine.host)
        self._lost = False
        self._begun.set()
        await self._look_at_all()  # what happened before the stream began was not in it

    async def _list(self) -> None:
        while True:
            with anyio.move_on_after(self._list_seconds):
                await self._begun.wait()
                self._begun = anyio.Event()
                await anyio.sleep(_SUBSCRIBED_SECONDS)
            try:
                await self._look_at_all()
            except (Unavailable, DockerError, KeyError, TypeError) as error:
                self._say_lost(str(error))

    async def _look_at_all(self) -> None:
        followed = self._bells.keys()
        if not followed:
            return
        found = await self._engine.labelled(RUN_LABEL)
        states = {container["Id"]: container["State"] for container in found}
        for container_id in followed:
            if states.get(container_id, "removing") in _ENDED:
                self._bells.ring(container_id)

    def _say_lost(self, why: str) -> None:
        if not self._lost:
            log.warning("docker events lost", engine=self._engine.host, why=why)
        self._lost = True
