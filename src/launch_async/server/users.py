"""People, teams and keys. A key is shown once; the database keeps its digest."""

import hashlib
import secrets

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.access import Role
from launch_async.server.context import utc_now
from launch_async.server.errors import ApiError
from launch_async.server.projects import LAUNCH_PROJECT, check_name, ensure_project
from launch_async.server.store.engine import hold, insert
from launch_async.server.store.tables.people import api_keys, entities, memberships, users

KEY_BYTES = 20  # 40 hex characters: the client refuses fewer
HINT_LENGTH = 4


def digest_of(key: str) -> str:
    """Return what is stored of a key. Keys are random, so a fast hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


async def create_user(
    connection: AsyncConnection,
    username: str,
    *,
    email: str | None = None,
    admin: bool = False,
    service: bool = False,
) -> int:
    """Make a user with a personal entity of the same name; return the user's row id."""
    check_name("user", username)
    now = utc_now()
    rows = await connection.execute(
        insert(connection, users)
        .values(
            username=username,
            name=username,
            email=email,
            admin=admin,
            service=service,
            created_at=now,
        )
        .on_conflict_do_nothing()
        .returning(users.c.id)
    )
    user_id: int | None = rows.scalar_one_or_none()
    if user_id is None:
        raise taken(username)
    await _create_entity(connection, username, kind="user", user_id=user_id, admin=user_id)
    return user_id


async def create_team(
    connection: AsyncConnection, name: str, *, admin_user_id: int | None = None
) -> int:
    """Make a team, with its admin as first member or with none; return the entity's row id."""
    check_name("team", name)
    return await _create_entity(connection, name, kind="team", user_id=None, admin=admin_user_id)


def taken(name: str) -> ApiError:
    """Return the refusal of a name: users and teams share one name space."""
    return ApiError(f"the name {name!r} is taken", status=409)


async def add_member(
    connection: AsyncConnection, entity_id: int, user_id: int, *, role: Role = Role.MEMBER
) -> None:
    """Let a user reach what an entity owns. Twice does no harm."""
    await connection.execute(
        insert(connection, memberships)
        .values(user_id=user_id, entity_id=entity_id, role=role.word, created_at=utc_now())
        .on_conflict_do_nothing()
    )


async def find_user(connection: AsyncConnection, username: str) -> int | None:
    """Return the row id of the user with this name."""
    rows = await connection.execute(select(users.c.id).where(users.c.username == username))
    return rows.scalar_one_or_none()


async def create_api_key(
    connection: AsyncConnection, user_id: int, description: str | None = None
) -> str:
    """Make a key and return it; it cannot be read again."""
    key = secrets.token_hex(KEY_BYTES)
    await add_api_key(connection, user_id, key, description)
    return key


async def add_api_key(
    connection: AsyncConnection, user_id: int, key: str, description: str | None = None
) -> bool:
    """Let an existing key stand for a user; twice does no harm. 409 when it is another user's.

    Tells whether the key is in force: one that was revoked stays so.
    """
    if len(key) < 2 * KEY_BYTES:
        raise ApiError(f"a key has {2 * KEY_BYTES} or more characters, not {len(key)}")
    await connection.execute(
        insert(connection, api_keys)
        .values(
            user_id=user_id,
            digest=digest_of(key),
            hint=key[-HINT_LENGTH:],
            description=description,
            created_at=utc_now(),
        )
        .on_conflict_do_nothing()
    )
    rows = await connection.execute(
        select(api_keys.c.user_id, api_keys.c.revoked_at).where(api_keys.c.digest == digest_of(key))
    )
    kept = rows.one()
    if kept.user_id != user_id:
        raise ApiError("this key is another user's; take a fresh one", status=409)
    return kept.revoked_at is None


async def revoke_api_key(connection: AsyncConnection, key_id: int, *, user_id: int) -> bool:
    """Refuse a user's key from now on; tell whether there was one to refuse."""
    result = await connection.execute(
        update(api_keys)
        .where(
            api_keys.c.id == key_id,
            api_keys.c.user_id == user_id,
            api_keys.c.revoked_at.is_(None),
        )
        .values(revoked_at=utc_now())
    )
    return result.rowcount == 1


async def ensure_local_user(connection: AsyncConnection, username: str, key: str | None) -> str:
    """Make the one user of an embedded server, once, as its admin; return a key that works.

    `key` is the one kept from an earlier start, None on the first.
    """
    await hold(connection, "user", username)  # other servers may start at this moment
    user_id = await find_user(connection, username)
    if user_id is None:
        user_id = await create_user(connection, username, admin=True)
    if key is None:
        return await create_api_key(connection, user_id, "made by launch-async up")
    await add_api_key(connection, user_id, key, "made by launch-async up")
    return key


async def _create_entity(
    connection: AsyncConnection, name: str, *, kind: str, user_id: int | None, admin: int | None
) -> int:
    rows = await connection.execute(
        insert(connection, entities)
        .values(name=name, kind=kind, user_id=user_id, created_at=utc_now())
        .on_conflict_do_nothing()
        .returning(entities.c.id)
    )
    entity_id: int | None = rows.scalar_one_or_none()
    if entity_id is None:
        raise taken(name)
    if admin is not None:
        await add_member(connection, entity_id, admin, role=Role.ADMIN)
    await ensure_project(connection, entity_id, LAUNCH_PROJECT, user_id=admin)
    return entity_id
