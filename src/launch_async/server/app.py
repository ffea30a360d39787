"""The HTTP server: routes, the edge where errors become answers, and its life.

POST /graphql | POST /files/{entity}/{project}/{run}/file_stream | PUT, GET /storage/{key}
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from launch_async.server import (
    admin_api,
    artifact_blobs,
    artifact_files,
    artifact_manifests,
    artifact_parts,
    files,
    filestream,
)
from launch_async.server.artifact_sweep import sweep_artifacts
from launch_async.server.auth import authenticate
from launch_async.server.context import Request
from launch_async.server.crashes import watch_for_crashes
from launch_async.server.errors import ApiError
from launch_async.server.graphql import GraphQL, Question, fault
from launch_async.server.resolvers.bind import BINDABLES
from launch_async.server.services import Services, UploadRule, open_services
from launch_async.server.settings import Settings
from launch_async.server.storage import Storage
from launch_async.server.store.faults import insist
from launch_async.server.urls import Urls
from launch_async.server.web import pages
from launch_async.wire.operations import LEASE_HEADER

__all__ = ["Services", "create_app", "open_services", "serve"]

SERVICES = web.AppKey("services", Services)
STREAMED = "/storage/"
GRAPHQL = web.AppKey("graphql", GraphQL)
AUTHOR_HEADER = "X-Wandb-Username"


def create_app(
    services: Services, settings: Settings, *, graphql: GraphQL | None = None
) -> web.Application:
    """Return the application; the caller runs it and closes the services.

    `graphql` may be shared by several applications, as joining the schema takes a while.
    """
    app = web.Application(
        middlewares=[answer_errors, do_again], client_max_size=settings.max_request_bytes
    )
    app[SERVICES] = services
    app[GRAPHQL] = graphql or GraphQL.load(BINDABLES)
    rules: dict[str, UploadRule] = {
        files.KEYS: files.UPLOADS,
        artifact_blobs.KEYS: artifact_blobs.UPLOADS,
        artifact_manifests.KEYS: artifact_manifests.UPLOADS,
        artifact_parts.KEYS: artifact_parts.UPLOADS,
    }
    app.add_routes(
        [
            web.post("/graphql", post_graphql),
            web.post("/files/{entity}/{project}/{run}/file_stream", post_file_stream),
            web.get("/healthz", get_health),
        ]
    )
    app.add_routes(admin_api.routes(services, settings.admin_key))
    app.add_routes(Storage(services, rules).routes())
    app.add_routes(artifact_files.routes(services))
    app.add_routes(pages.routes(services))
    return app


async def serve(services: Services, settings: Settings, *, started: Callable[[str], None]) -> None:
    """Serve until cancelled; `started` is called with our URL once we listen.

    Raises OSError when an address cannot be had.
    """
    async with listening(services, settings) as url, anyio.create_task_group() as tasks:
        tasks.start_soon(watch_for_crashes, services, name="crash watch")
        tasks.start_soon(sweep_artifacts, services, name="artifact sweep")
        started(url)
        await anyio.sleep_forever()


@asynccontextmanager
async def listening(
    services: Services, settings: Settings, *, graphql: GraphQL | None = None
) -> AsyncGenerator[str]:
    """Listen on every address of the settings; yield the first one's URL."""
    runner = web.AppRunner(
        create_app(services, settings, graphql=graphql),
        access_log=None,
        shutdown_timeout=settings.shutdown_seconds,
    )
    await runner.setup()
    try:
        for host, port in ((settings.host, settings.port), *settings.listen):
            await web.TCPSite(runner, host, port).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


async def request_for(request: web.Request, *, ended: bool = False) -> Request:
    """Return what resolvers and rules need of an HTTP request; 401 without a good key.

    `ended`: the key of a run that has ended is good for whoever asks to look at that himself.
    """
    services = request.app[SERVICES]
    viewer = await authenticate(services.store, request, ended=ended)
    base = services.settings.public_url or f"{request.scheme}://{request.host}"
    return Request(
        viewer=viewer,
        store=services.store,
        blobs=services.blobs,
        urls=Urls(base, services.signer),
        settings=services.settings,
        author=request.headers.get(AUTHOR_HEADER),
        lease=request.headers.get(LEASE_HEADER),
    )


async def post_graphql(http_request: web.Request) -> web.StreamResponse:
    """Execute a GraphQL document."""
    request = await request_for(http_request)
    try:
        question = msgspec.json.decode(await http_request.read(), type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the body is not a GraphQL request: {error}") from error
    answer = await http_request.app[GRAPHQL].answer(question, request)
    return _json(answer.body, answer.status)


async def post_file_stream(http_request: web.Request) -> web.StreamResponse:
    """Take what a run has to tell."""
    request = await request_for(http_request, ended=True)
    names = http_request.match_info
    reply = await filestream.receive(
        request,
        await http_request.read(),
        entity=names["entity"],
        project=names["project"],
        run_name=names["run"],
    )
    return _json(reply, 200)


async def get_health(_request: web.Request) -> web.StreamResponse:
    """Tell that the server answers."""
    return _json({"status": "ok"}, 200)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn refusals and faults into JSON, in the two forms that the client can show."""
    try:
        if not _is_text(request.path) or not _is_text(request.host):
            raise ApiError("the address is not valid UTF-8")
        return await handler(request)
    except ApiError as error:
        return _refusal(error.message, error.status)
    except web.RequestPayloadError:
        return _refusal("the body is not what its length or Content-Encoding says", 400)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = _refusal(error.reason, error.status)
        answer.headers.update(
            {
                name: error.headers[name]
                for name in ("Allow", "Content-Range")
                if name in error.headers
            }
        )
        return answer
    except Exception as error:  # noqa: BLE001 - the edge of a request
        if request.transport is None or request.transport.is_closing():
            return _refusal("the client went away", 400)  # nobody is left to read it
        return _refusal(fault(error, method=request.method, path=request.path), 500)


@web.middleware
async def do_again(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Begin a request anew whose transaction lost to another one; its body is kept for that."""
    if request.path.startswith(STREAMED):
        return await handler(request)
    return await insist(partial(handler, request))


def _is_text(part: str) -> bool:
    """Tell whether a text came as UTF-8; aiohttp keeps other bytes as halves of surrogates."""
    try:
        part.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(message: str, status: int) -> web.Response:
    text = message.encode(errors="replace").decode()
    return _json({"errors": [{"message": text}], "error": text}, status)


def _json(body: Any, status: int) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )
