"""JSON for people and programs, and parameters of a query."""

import re
from typing import Any

import msgspec
import structlog
from aiohttp import web

from launch_async.admin.access import Handler
from launch_async.domain.errors import LaunchError

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def json_answer(value: Any, *, status: int = 200) -> web.Response:
    """The value as indented JSON."""
    body = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return web.Response(body=body + b"\n", status=status, content_type="application/json")


def refused(text: str, *, status: int) -> web.Response:
    """`{"error": text}`."""
    return json_answer({"error": text}, status=status)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the agent says no to with a reason is no fault of the endpoint; the rest is one."""
    try:
        return await handler(request)
    except (web.HTTPException, web.RequestPayloadError, ConnectionError):
        raise  # the client's affair
    except LaunchError as error:
        return refused(str(error), status=503)
    except Exception:
        log.exception("admin endpoint: a fault of ours", path=request.path)
        return refused("a fault in launch-async; its log has the traceback", status=500)


def whole(request: web.Request, name: str, *, default: int, most: int) -> int:
    """A whole number of the query, between 0 and `most`.

    Raises:
        HTTPBadRequest: it is not one.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > most:
        raise web.HTTPBadRequest(text=f"{name} must be a whole number from 0 to {most}\n")
    return int(text)
