"""Who asks: a key in the Authorization header, looked up by its digest."""

import base64
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from aiohttp import web
from sqlalchemy import Row, bindparam, null, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import run_keys
from launch_async.server.access import ROLES, Role, RunScope, Viewer
from launch_async.server.context import utc_now
from launch_async.server.errors import ApiError
from launch_async.server.store import Store
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import api_keys, entities, memberships, users
from launch_async.server.store.tables.queues import run_keys as run_key_table
from launch_async.server.users import digest_of

Rows = Sequence[Row[*tuple[Any, ...]]]

REFUSAL = (
    "invalid API key: this server does not know it. "
    "Ask for a key of this server, and log in again with: wandb login --relogin"
)

WHO: Final = (
    users.c.id,
    users.c.username,
    users.c.email,
    users.c.name,
    users.c.admin,
    users.c.service,
    memberships.c.role,
    entities.c.name.label("entity"),
    entities.c.user_id.label("entity_user_id"),
)
DIGEST: Final[Any] = bindparam("digest")
HOLDERS: Final = often(
    union_all(  # the columns have the types of the first part
        select(*WHO, *run_keys.SCOPE_COLUMNS)
        .select_from(run_keys.HOLDERS)
        .where(run_key_table.c.digest == DIGEST, run_keys.IN_REACH),
        select(*WHO, *(null() for _ in run_keys.SCOPE_COLUMNS))
        .join(users, users.c.id == api_keys.c.user_id)
        .join(memberships, memberships.c.user_id == users.c.id)
        .join(entities, entities.c.id == memberships.c.entity_id)
        .where(api_keys.c.digest == DIGEST, api_keys.c.revoked_at.is_(None)),
    ),
    alone=True,
)
"""Whose key it is, a row for each entity in its reach."""


async def authenticate(store: Store, request: web.Request, *, ended: bool = False) -> Viewer:
    """Return who sent the request; 401 without a key that is in force, or as `find_viewer` says."""
    key = key_of(request.headers.get("Authorization", ""))
    viewer = None if key is None else await find_viewer(store, key, ended=ended)
    if viewer is None:
        raise ApiError(REFUSAL, status=401)
    return viewer


def key_of(header: str) -> str | None:
    """Return the key of `Basic base64(api:KEY)`, the client's form, or of `Bearer KEY`."""
    scheme, _, rest = header.partition(" ")
    match scheme.lower():
        case "bearer":
            key = rest.strip()
            return key if key.isascii() and key else None
        case "basic":
            try:
                _, _, key = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
            except ValueError:  # not base64, or not text
                return None
            return key or None
        case _:
            return None


async def find_viewer(store: Store, key: str, *, ended: bool = False) -> Viewer | None:
    """Return whose key this is, a person's or a run's, with the entities that it may reach.

    `ended`: also of a run that ended not long ago. The caller lets it tell that end again only.

    A run's key is asked of the database each time, as it follows from its item. A person is
    remembered until anything is written but what comes many times a second, at most for a second.
    """
    digest, edition = digest_of(key), store.memory.edition
    known: Viewer | None = store.memory.find(digest)
    if known is not None:
        return known

    async def read(connection: AsyncConnection) -> Viewer | None:
        rows = (await connection.execute(HOLDERS, {"digest": digest})).all()
        if not rows:
            return None
        if rows[0].item_id is None:
            return _person(rows)
        scope = await run_keys.scope_of(connection, rows[0], now=utc_now())
        return None if scope is None or (scope.ended and not ended) else _run(rows, scope)

    viewer = await store.lookup(read)
    if viewer is not None and viewer.run is None:
        store.memory.keep(digest, viewer, edition=edition)
    return viewer


def _person(rows: Rows) -> Viewer:
    first = rows[0]
    return Viewer(
        user_id=first.id,
        username=first.username,
        email=first.email,
        name=first.name,
        admin=first.admin,
        service=first.service,
        roles={row.entity: ROLES[row.role] for row in sorted(rows, key=_own_first)},
    )


def _run(rows: Rows, scope: RunScope) -> Viewer | None:
    person = _person(rows)
    if not person.may(scope.entity, Role.MEMBER):
        return None  # the author may not write there any more
    return msgspec.structs.replace(
        person, admin=False, run=scope, roles=dict.fromkeys(person.roles, Role.VIEWER)
    )


def _own_first(row: Row[*tuple[Any, ...]]) -> tuple[bool, str]:
    return row.entity_user_id != row.id, row.entity
