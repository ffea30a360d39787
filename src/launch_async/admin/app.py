"""The admin endpoint: `/livez`, `/readyz`, `/healthz`, `/metrics` and `/status`."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import anyio
import msgspec
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from launch_async.admin.health import LoopLag, liveness, readiness
from launch_async.admin.metrics import registry_of
from launch_async.ports.status import StatusSource

SHUTDOWN_SECONDS = 1.0


def create_app(source: StatusSource, lag: LoopLag) -> web.Application:
    """The application; it reads `source` at each request and keeps nothing."""
    registry = registry_of(source, lag)

    async def livez(request: web.Request) -> web.Response:
        return _checks(request, liveness(lag))

    async def readyz(request: web.Request) -> web.Response:
        return _checks(request, readiness(source.view()))

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def status(_: web.Request) -> web.Response:
        body = msgspec.json.format(msgspec.json.encode(source.view()), indent=2)
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/healthz", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get("/status", status),
        ]
    )
    return app


@asynccontextmanager
async def serving(source: StatusSource, *, host: str, port: int) -> AsyncGenerator[str, None]:
    """Serve while the block runs; gives the endpoint's address.

    Raises:
        OSError: the address cannot be listened on.
    """
    lag = LoopLag()
    runner = web.AppRunner(
        create_app(source, lag), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound: int = runner.addresses[0][1]
        async with anyio.create_task_group() as group:
            group.start_soon(lag.run, name="loop lag")
            yield f"http://{host}:{bound}"
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


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
