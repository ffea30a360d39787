"""The admin endpoint of an agent that may not act yet: it lives, is not ready, and says why.

Scrapers get an answer: a target that waits is none that is down.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from launch_async.admin.app import listening
from launch_async.admin.connections import Connections
from launch_async.admin.metrics import standby_registry
from launch_async.admin.scrapes import Scrapes

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Standby:
    """Why it waits; each reason is logged once until there is another."""

    def __init__(self) -> None:
        self.why = "it starts"

    def wait(self, why: str) -> None:
        """It waits for this."""
        if why != self.why:
            log.info("agent stands by", why=why)
        self.why = why


@asynccontextmanager
async def standing_by(standby: Standby, *, host: str, port: int) -> AsyncGenerator[str, None]:
    """Answer probes and scrapers at the address that is yielded, while the block runs.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def livez(request: web.Request) -> web.Response:  # noqa: ARG001
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:  # noqa: ARG001
        return web.Response(text=f"[-]standby {standby.why}\n", status=503)

    connections = Connections()
    app = web.Application(middlewares=[connections.middleware])
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/healthz", livez),
            web.get("/metrics", Scrapes(standby_registry()).answer),
            web.route("*", "/{rest:.*}", readyz),
        ]
    )
    async with listening(app, connections, host=host, port=port) as url:
        yield url
