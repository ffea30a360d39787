"""The admin endpoint: probes, metrics, views and changes of one agent.

```
/livez /readyz        probes, never refused
/metrics              one rendering a second for all scrapers
/status /queues …     at most so many answers at once
/items/ID/logs        a few followers at once
POST                  with the token alone; readers cannot take their places
```
"""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

import anyio
from aiohttp import web
from aiohttp.typedefs import Middleware

from launch_async.admin.access import MAX_ANSWERS, Handler, at_most, with_token
from launch_async.admin.answers import answer_errors
from launch_async.admin.changing import Changing
from launch_async.admin.connections import IDLE_SECONDS, MAX_CONNECTIONS, Connections
from launch_async.admin.health import liveness, readiness
from launch_async.admin.metrics import registry_of
from launch_async.admin.operated import Operations
from launch_async.admin.reading import Reading
from launch_async.admin.scrapes import Scrapes
from launch_async.kit.addresses import is_loopback

SHUTDOWN_SECONDS = 1.0
MAX_FOLLOWERS = 16
MAX_CHANGES = 8
MAX_BODY_BYTES = 4096
NO_LOG = logging.Logger("nobody's", level=logging.CRITICAL)  # noqa: LOG001 - and only here
"""For aiohttp, which logs a traceback for each client that speaks no HTTP."""


def create_app(
    operations: Operations, *, open_logs: bool = True, middlewares: Sequence[Middleware] = ()
) -> web.Application:
    """The application; it asks the agent at each request and keeps nothing but rendered metrics.

    Logs need the token unless `open_logs`: jobs print what is not for everybody on a network.
    """
    agent, backends, lag = operations.agent, operations.backends, operations.lag
    reading, changing = Reading(agent), Changing(operations)
    scrapes = Scrapes(registry_of(agent, lag, backends))
    answers = anyio.CapacityLimiter(MAX_ANSWERS)
    followers = anyio.CapacityLimiter(MAX_FOLLOWERS)
    changes = anyio.CapacityLimiter(MAX_CHANGES)

    async def livez(request: web.Request) -> web.Response:
        return _checks(request, liveness(lag))

    async def readyz(request: web.Request) -> web.Response:
        return _checks(request, readiness(agent.view(items=0), lag, backends()))

    tail = at_most(answers, reading.log_tail)
    follow = at_most(followers, reading.follow, seconds=None)

    async def logs(request: web.Request) -> web.StreamResponse:
        return await (follow if request.query.get("follow") == "1" else tail)(request)

    def read(path: str, handler: Handler) -> web.RouteDef:
        return web.get(path, at_most(answers, handler))

    def change(path: str, handler: Handler) -> web.RouteDef:
        return web.post(path, with_token(operations.token, at_most(changes, handler)))

    def secret(path: str, handler: Handler) -> web.RouteDef:
        return web.get(path, with_token(operations.token, handler))

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[*middlewares, answer_errors])
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/healthz", livez),
            web.get("/readyz", readyz),
            read("/metrics", scrapes.answer),
            read("/status", reading.status),
            read("/queues", reading.queues),
            read("/queues/{name}/explain", reading.explain_queue),
            read("/items", reading.items),
            read("/items/{id}", reading.item),
            read("/items/{id}/explain", reading.explain_item),
            web.get("/items/{id}/logs", logs) if open_logs else secret("/items/{id}/logs", logs),
            secret("/debug/tasks", at_most(changes, reading.tasks)),
            change("/drain", changing.drain),
            change("/queues/{name}/pause", changing.of_queue(agent.pause, "paused")),
            change("/queues/{name}/resume", changing.of_queue(agent.resume, "resumed")),
            change("/items/{id}/cancel", changing.cancel),
            change("/reload", changing.reload),
            change("/loglevel", changing.log_level),
        ]
    )
    return app


@asynccontextmanager
async def serving(
    operations: Operations,
    *,
    host: str,
    port: int,
    max_connections: int = MAX_CONNECTIONS,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncGenerator[str, None]:
    """Serve while the block runs; gives the endpoint's address.

    Raises:
        OSError: the address cannot be listened on.
    """
    connections = Connections(max_connections)
    app = create_app(
        operations,
        open_logs=is_loopback(f"http://{_bracketed(host)}"),
        middlewares=[connections.middleware],
    )
    listens = listening(app, connections, host=host, port=port, idle_seconds=idle_seconds)
    async with listens as url:
        yield url


@asynccontextmanager
async def listening(
    app: web.Application,
    connections: Connections,
    *,
    host: str,
    port: int,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncGenerator[str, None]:
    """Serve any application that has the middleware of `connections`; otherwise as `serving`."""
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=NO_LOG,
        shutdown_timeout=SHUTDOWN_SECONDS,
        keepalive_timeout=idle_seconds,
    )
    await runner.setup()
    try:
        server = cast("web.Server", runner.server)  # there is one from setup to cleanup
        listener = await connections.listen(server, host=host, port=port)
        try:
            bound: int = listener.sockets[0].getsockname()[1]
            yield f"http://{_bracketed(host)}:{bound}"
        finally:
            listener.close()
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _checks(request: web.Request, checks: Mapping[str, str]) -> web.Response:
    """200 or 503; `?verbose` lists the checks, `?exclude=NAME` leaves one out."""
    excluded = set(request.query.getall("exclude", []))
    failed = {name: text for name, text in checks.items() if text and name not in excluded}
    lines = ["ok" if not failed else f"{len(failed)} of {len(checks)} checks failed"]
    if failed or "verbose" in request.query:
        lines += [
            f"[-]{name} {failed[name]}" if name in failed else f"[+]{name} ok" for name in checks
        ]
    return web.Response(text="\n".join(lines) + "\n", status=503 if failed else 200)
