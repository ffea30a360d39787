"""Who asks: a key in the Authorization header, looked up by its digest."""

import base64

from aiohttp import web
from sqlalchemy import select

from launch_async.server.access import ROLES, Viewer
from launch_async.server.errors import ApiError
from launch_async.server.store import Store
from launch_async.server.store.tables.people import api_keys, entities, memberships, users
from launch_async.server.users import digest_of

REFUSAL = (
    "invalid API key: this server does not know it. "
    "Ask for a key of this server, and log in again with: wandb login --relogin"
)


async def authenticate(store: Store, request: web.Request) -> Viewer:
    """Return who sent the request; 401 without a key that is in force."""
    key = key_of(request.headers.get("Authorization", ""))
    viewer = None if key is None else await find_viewer(store, key)
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


async def find_viewer(store: Store, key: str) -> Viewer | None:
    """Return the user whose key this is, with the entities that they may reach."""
    statement = (
        select(
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
        .join(users, users.c.id == api_keys.c.user_id)
        .join(memberships, memberships.c.user_id == users.c.id)
        .join(entities, entities.c.id == memberships.c.entity_id)
        .where(api_keys.c.digest == digest_of(key), api_keys.c.revoked_at.is_(None))
    )
    async with store.read() as connection:
        rows = (await connection.execute(statement)).all()
    if not rows:
        return None
    first = rows[0]
    ordered = sorted(rows, key=lambda row: (row.entity_user_id != first.id, row.entity))
    return Viewer(
        user_id=first.id,
        username=first.username,
        email=first.email,
        name=first.name,
        admin=first.admin,
        service=first.service,
        roles={row.entity: ROLES[row.role] for row in ordered},
    )
