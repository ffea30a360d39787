"""What a resolver is given: who asks, and the services that answer."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from graphql import GraphQLResolveInfo

from launch_async.server.access import Viewer
from launch_async.server.blobs import Blobs
from launch_async.server.settings import Settings
from launch_async.server.store import Store
from launch_async.server.urls import Urls

Info = GraphQLResolveInfo[Any]
"""The second argument of each resolver."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One authenticated request, as resolvers see it."""

    viewer: Viewer
    store: Store
    blobs: Blobs
    urls: Urls
    settings: Settings
    author: str | None = None
    """The user for whom a service account says that it works."""
    lease: str | None = None
    """The token of the lease that an agent speaks of; W&B's agents have none."""

    def now(self) -> datetime:
        """Return the time, aware and in UTC."""
        return utc_now()


def utc_now() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def request_of(info: Info) -> Request:
    """Return the request that a resolver runs for."""
    request = info.context
    if not isinstance(request, Request):
        raise TypeError("a resolver ran without a request")
    return request
