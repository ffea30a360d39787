"""Direct looks at containers; many at once share a list, so that a restart is no burst."""

from typing import Any

import anyio

from launch_async.adapters.runners.docker.engine import Engine
from launch_async.adapters.runners.docker.options import RUN_LABEL
from launch_async.kit.shared import Shared

_AT_ONCE = 8


class Looks:
    """Inspects containers, a few at once; who must wait may learn from a list that all goes on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._places = anyio.CapacityLimiter(_AT_ONCE)
        self._lists: Shared[frozenset[str]] = Shared()
        self._pings: Shared[None] = Shared()
        self._greeted = False

    async def state(self, container_id: str) -> dict[str, Any] | None:
        """The `State` of a container as the engine's inspect shows it; None: no such container.

        A list tells how things are but not how they ended, so that only "it runs" comes from it.
        """
        if not self._greeted:  # else each call of the first burst asks for the engine's version
            await self._pings.get(self._engine.ping)
            self._greeted = True
        if self._places.available_tokens < 1:
            running = await self._lists.get(self._running)
            if container_id in running:
                return {"Status": "running"}
        async with self._places:
            found = await self._engine.inspect(container_id)
        state: dict[str, Any] | None = found["State"] if found else None
        return state

    async def _running(self) -> frozenset[str]:
        listed = await self._engine.labelled(RUN_LABEL)
        return frozenset(one["Id"] for one in listed if one["State"] == "running")
