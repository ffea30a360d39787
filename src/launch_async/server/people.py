"""Users, teams and their members as the operator of a server sees and changes them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.access import Role
from launch_async.server.context import Request, utc_now
from launch_async.server.errors import ApiError
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.people import api_keys, entities, memberships, users
from launch_async.server.store.tables.texts import in_order
from launch_async.server.users import digest_of


class Person(msgspec.Struct, frozen=True):
    """A user, without anything secret."""

    id: int
    username: str
    email: str | None
    admin: bool
    service: bool
    created_at: datetime


class Team(msgspec.Struct, frozen=True):
    """A team."""

    id: int
    name: str
    created_at: datetime


class KeyInfo(msgspec.Struct, frozen=True):
    """What is known of a key: never the key itself."""

    id: int
    hint: str
    description: str | None
    created_at: datetime


async def list_people(connection: AsyncConnection, *, after_id: int, limit: int) -> list[Person]:
    """Return users by row id, from the first past `after_id`."""
    return await _people(connection, users.c.id > after_id, limit)


async def require_person(connection: AsyncConnection, username: str) -> Person:
    """Return a user; 404 when there is none of this name."""
    found = await _people(connection, users.c.username == username, 1)
    if not found:
        raise ApiError(f"there is no user {username!r}", status=404)
    return found[0]


async def list_teams(connection: AsyncConnection, *, after_id: int, limit: int) -> list[Team]:
    """Return teams by row id, from the first past `after_id`."""
    return await _teams(connection, entities.c.id > after_id, limit)


async def require_team(connection: AsyncConnection, name: str) -> Team:
    """Return a team; 404 when there is none of this name. A user's own entity is no team."""
    found = await _teams(connection, entities.c.name == name, 1)
    if not found:
        raise ApiError(f"there is no team {name!r}", status=404)
    return found[0]


async def teams_of(connection: AsyncConnection, user_id: int) -> Mapping[str, str]:
    """Return a user's role by the name of each team."""
    rows = await connection.execute(
        select(entities.c.name, memberships.c.role)
        .join(memberships, memberships.c.entity_id == entities.c.id)
        .where(memberships.c.user_id == user_id, entities.c.kind == "team")
        .order_by(in_order(entities.c.name))
    )
    return {row.name: row.role for row in rows}


async def members_of(connection: AsyncConnection, entity_id: int) -> Mapping[str, str]:
    """Return the role by the name of each member."""
    rows = await connection.execute(
        select(users.c.username, memberships.c.role)
        .join(memberships, memberships.c.user_id == users.c.id)
        .where(memberships.c.entity_id == entity_id)
        .order_by(in_order(users.c.username))
    )
    return {row.username: row.role for row in rows}


async def set_member(connection: AsyncConnection, entity_id: int, user_id: int, role: Role) -> None:
    """Let a user reach what a team owns, in this role from now on."""
    statement = insert(connection, memberships).values(
        user_id=user_id, entity_id=entity_id, role=role.word, created_at=utc_now()
    )
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[memberships.c.user_id, memberships.c.entity_id],
            set_={"role": role.word},
        )
    )


async def remove_member(connection: AsyncConnection, entity_id: int, user_id: int) -> bool:
    """Let a user reach a team no more; tell whether it was a member."""
    gone = await connection.execute(
        delete(memberships).where(
            memberships.c.entity_id == entity_id, memberships.c.user_id == user_id
        )
    )
    return gone.rowcount == 1


async def keys_of(
    connection: AsyncConnection, user_id: int, *, after_id: int = 0, limit: int
) -> list[KeyInfo]:
    """Return a user's keys in force by row id, from the first past `after_id`."""
    columns: list[Any] = [api_keys.c[name] for name in KeyInfo.__struct_fields__]
    rows = await connection.execute(
        select(*columns)
        .where(
            api_keys.c.user_id == user_id,
            api_keys.c.revoked_at.is_(None),
            api_keys.c.id > after_id,
        )
        .order_by(api_keys.c.id)
        .limit(limit)
    )
    return [KeyInfo(*row) for row in rows]


async def author_of_run(connection: AsyncConnection, request: Request, entity_id: int) -> int:
    """Return whose a new run is: the viewer's, or the member's whom a service account names."""
    viewer, named = request.viewer, request.author
    if not viewer.service or not named:
        return viewer.user_id
    member = await connection.scalar(
        select(users.c.id)
        .join(memberships, memberships.c.user_id == users.c.id)
        .where(users.c.username == named, memberships.c.entity_id == entity_id)
    )
    return viewer.user_id if member is None else int(member)


async def key_info(connection: AsyncConnection, key: str) -> KeyInfo:
    """Return what is known of a key that is in force."""
    columns: list[Any] = [api_keys.c[name] for name in KeyInfo.__struct_fields__]
    rows = await connection.execute(select(*columns).where(api_keys.c.digest == digest_of(key)))
    return KeyInfo(*rows.one())


async def personal_entity(connection: AsyncConnection, user_id: int) -> int:
    """Return the row id of a user's own entity."""
    rows = await connection.execute(select(entities.c.id).where(entities.c.user_id == user_id))
    return int(rows.scalar_one())


async def delete_person(connection: AsyncConnection, user_id: int) -> None:
    """Delete a user with keys, memberships and personal entity; what is a team's stays there."""
    await connection.execute(delete(users).where(users.c.id == user_id))


async def delete_team(connection: AsyncConnection, entity_id: int) -> None:
    """Delete a team with all that it owns; its members stay users."""
    await connection.execute(delete(entities).where(entities.c.id == entity_id))


async def _people(
    connection: AsyncConnection, which: ColumnElement[bool], limit: int
) -> list[Person]:
    columns: list[Any] = [users.c[name] for name in Person.__struct_fields__]
    rows = await connection.execute(select(*columns).where(which).order_by(users.c.id).limit(limit))
    return [Person(*row) for row in rows]


async def _teams(connection: AsyncConnection, which: ColumnElement[bool], limit: int) -> list[Team]:
    rows = await connection.execute(
        select(entities.c.id, entities.c.name, entities.c.created_at)
        .where(entities.c.kind == "team", which)
        .order_by(entities.c.id)
        .limit(limit)
    )
    return [Team(*row) for row in rows]
