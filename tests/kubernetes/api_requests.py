"""Requests to an API server in Kubernetes' words, and its no."""

import json
import re
import time
from collections.abc import Mapping

import msgspec
from aiohttp import web

HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_RESOURCE = re.compile(
    r"^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/[^/]+(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?P<part>/.+)?)?$"
)


class Seen(msgspec.Struct, frozen=True):
    """A request that came, at a time of the monotonic clock. `resource` is as `pods/log`."""

    verb: str
    resource: str
    path: str
    query: Mapping[str, str]
    at: float


def read_request(request: web.Request) -> Seen:
    found = _RESOURCE.match(request.path)
    resource, name, part = found.group("resource", "name", "part") if found else ("", "-", None)
    query = dict(request.query)
    verb = _VERBS.get(request.method, "get")
    if request.method == "DELETE":
        verb = "delete" if name else "deletecollection"
    elif verb == "get" and query.get("watch") in {"1", "true"}:
        verb = "watch"
    elif verb == "get" and not name:
        verb = "list"
    return Seen(verb, resource + (part or ""), request.path, query, time.monotonic())


def status_body(code: int, message: str, reason: str | None = None) -> bytes:
    """Return the body of an API server's no."""
    said = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return json.dumps(
        {**said, "message": message, "reason": reason or REASONS.get(code, ""), "code": code}
    ).encode()


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that are not of one connection alone."""
    return {name: text for name, text in headers.items() if name.lower() not in HOP_BY_HOP}
