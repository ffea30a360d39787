"""Changes of users, keys and teams in the client's words; /admin/v1/ can do more."""

import re
from typing import Any

from ariadne import MutationType, SchemaBindable
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import audit, people, users
from launch_async.server.access import Role, require_role
from launch_async.server.admin_input import FieldFault, NewKey, NewUser
from launch_async.server.context import Info, Request, request_of, utc_now
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number, encode_id
from launch_async.server.projects import EntityRow
from launch_async.server.resolvers.viewer import load_user, user_columns
from launch_async.server.run_rows import UserRow
from launch_async.server.store.tables import people as tables

NO_KEY = "you have no such key in force"
NO_WORD = re.compile(r"[^\w.-]+")

mutation = MutationType()

BINDABLES: list[SchemaBindable] = [mutation]

Json = dict[str, Any]


@mutation.field("createUser")
async def create_user(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Make a user by address; the name is the address up to its @."""
    request = request_of(info)
    _require_server_admin(request)
    email, admin = input["email"], bool(input.get("admin"))
    name = NO_WORD.sub("-", email.partition("@")[0])
    _check(NewUser(username=name, email=email))
    async with request.store.write() as connection:
        user_id = await users.create_user(connection, name, email=email, admin=admin)
        await audit.note(
            connection, request.viewer.username, "user.create", None, name, admin=admin
        )
    return {"user": await load_user(request, user_id)}


@mutation.field("generateApiKey")
async def generate_api_key(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Make a key for who asks. Its name in the answer is the key: it is shown this once."""
    request = request_of(info)
    description = input.get("description")
    _check(NewKey(description=description))
    async with request.store.write() as connection:
        key = await users.create_api_key(connection, request.viewer.user_id, description)
        made = await people.key_info(connection, key)
        username = request.viewer.username
        await audit.note(
            connection, username, "key.create", None, username, id=made.id, hint=made.hint
        )
    node = {"id": encode_id("ApiKey", made.id), "name": key, "description": description}
    return {"api_key": node}


@mutation.field("deleteApiKey")
async def delete_api_key(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Refuse a key from now on."""
    request = request_of(info)
    number = decode_number(input["id"], "ApiKey")
    async with request.store.write() as connection:
        viewer, owner = request.viewer, await _owner_of(connection, number)
        if owner is None or not (viewer.admin or owner.id == viewer.user_id):
            raise ApiError(NO_KEY, status=404)
        if not await users.revoke_api_key(connection, number, user_id=owner.id):
            raise ApiError(NO_KEY, status=404)
        await audit.note(connection, viewer.username, "key.revoke", None, owner.username, id=number)
    return {"success": True}


@mutation.field("createTeam")
async def create_team(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Make a team with its first admin."""
    request = request_of(info)
    _require_server_admin(request)
    name, first = input["team_name"], input.get("team_admin_user_name")
    async with request.store.write() as connection:
        admin_id = request.viewer.user_id
        if first is not None:
            admin_id = (await people.require_person(connection, first)).id
        entity_id = await users.create_team(connection, name, admin_user_id=admin_id)
        who = request.viewer.username
        await audit.note(connection, who, "team.create", None, name, members=[first or who])
    return {"entity": EntityRow(entity_id, name, "team", None, utc_now())}


@mutation.field("createInvite")
async def create_invite(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Make a user a member; 409 for one that is a member already."""
    request = request_of(info)
    role = Role.ADMIN if input.get("admin") else Role.MEMBER
    async with request.store.write() as connection:
        team = await _own_team(connection, request, input["entity_name"])
        person = await _find_person(connection, input.get("username"), input.get("email"))
        if person.username in await people.members_of(connection, team.id):
            raise ApiError(f"{person.username!r} is a member of {team.name!r} already", status=409)
        await people.set_member(connection, team.id, person.id, role)
        await audit.record(
            connection,
            request,
            "team.set_member",
            team.name,
            team.name,
            username=person.username,
            role=role.word,
        )
    invite = {"id": encode_id("User", person.id), "name": person.name, "email": person.email}
    return {"invite": {**invite, "created_at": utc_now(), "to_user": person}}


@mutation.field("deleteInvite")
async def delete_invite(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """End a membership."""
    request = request_of(info)
    number = decode_number(input.get("id") or "", "User")
    async with request.store.write() as connection:
        team = await _own_team(connection, request, input.get("entity_name") or "")
        if not await people.remove_member(connection, team.id, number):
            raise ApiError(f"this user is no member of {team.name!r}", status=404)
        rows = await connection.execute(
            select(tables.users.c.username).where(tables.users.c.id == number)
        )
        await audit.record(
            connection,
            request,
            "team.remove_member",
            team.name,
            team.name,
            username=rows.scalar_one(),
        )
    return {"success": True}


@mutation.field("createServiceAccount")
async def create_service_account(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Make a service account in a team; `launch-async admin key` makes keys for it."""
    request = request_of(info)
    name = NO_WORD.sub("-", input["description"])
    _check(NewUser(username=name))
    async with request.store.write() as connection:
        team = await _own_team(connection, request, input["entity_name"])
        user_id = await users.create_user(connection, name, service=True)
        await people.set_member(connection, team.id, user_id, Role.MEMBER)
        await audit.record(
            connection,
            request,
            "team.set_member",
            team.name,
            team.name,
            username=name,
            role="member",
        )
    return {"user": await load_user(request, user_id)}


def _require_server_admin(request: Request) -> None:
    if not request.viewer.admin:
        raise ApiError("this is for the server's admins; ask one of them", status=403)


def _check(body: NewUser | NewKey) -> None:
    """Hold what was given against the admin API's rules; older clients repeat a 422 for ever."""
    try:
        body.check()
    except FieldFault as fault:
        raise ApiError(fault.message) from fault


async def _own_team(connection: AsyncConnection, request: Request, name: str) -> people.Team:
    require_role(request.viewer, name, Role.ADMIN)
    return await people.require_team(connection, name)


async def _owner_of(connection: AsyncConnection, key_id: int) -> Row[int, str] | None:
    rows = await connection.execute(
        select(tables.users.c.id, tables.users.c.username)
        .join(tables.api_keys, tables.api_keys.c.user_id == tables.users.c.id)
        .where(tables.api_keys.c.id == key_id)
    )
    return rows.one_or_none()


async def _find_person(
    connection: AsyncConnection, username: str | None, email: str | None
) -> UserRow:
    """Return the user of a name or an address; 404 when there is none, or more than one."""
    which = tables.users.c.email == email
    if username is not None:
        which = tables.users.c.username == username
    rows = (await connection.execute(select(*user_columns()).where(which).limit(2))).all()
    if len(rows) != 1:
        raise ApiError(f"there is no user {username or email!r}", status=404)
    return UserRow(*rows[0])
