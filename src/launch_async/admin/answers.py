"""JSON for people and programs, and parameters of a query."""

from typing import Any

import msgspec
from aiohttp import web


def json_answer(value: Any, *, status: int = 200) -> web.Response:
    """The value as indented JSON."""
    body = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return web.Response(body=body + b"\n", status=status, content_type="application/json")


def refused(text: str, *, status: int) -> web.Response:
    """`{"error": text}`."""
    return json_answer({"error": text}, status=status)


def whole(request: web.Request, name: str, *, default: int, most: int) -> int:
    """A whole number of the query, between 0 and `most`.

    Raises:
        HTTPBadRequest: it is not one.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text[:9]) > most:
        raise web.HTTPBadRequest(text=f"{name} must be a whole number from 0 to {most}\n")
    return int(text)
