"""The admin API, /admin/v1/: users, their keys, teams and the audit trail, for who runs the server.

It is there only when an admin key is set. That key, or the key of a user who is an admin, comes as
`Authorization: Bearer KEY`.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.secret import Secret
from launch_async.server import audit, holdings, people, users
from launch_async.server.access import ROLES
from launch_async.server.admin_input import (
    ADMIN_KEY_NAME,
    FieldFault,
    Membership,
    NewKey,
    NewTeam,
    NewUser,
    read_body,
    read_flag,
    read_page,
    read_query,
)
from launch_async.server.auth import find_viewer, key_of
from launch_async.server.errors import ApiError
from launch_async.server.garbage import empty_garbage, throw_away
from launch_async.server.ids import read_number
from launch_async.server.services import Services

PREFIX: Final = "/admin/v1"
REFUSAL: Final = (
    "this takes the server's admin key, or the key of a user who is an admin, "
    "as `Authorization: Bearer KEY`"
)
PAGING: Final = ("after", "limit")

Json = dict[str, Any]
Action = Callable[[web.Request, str], Awaitable[web.Response]]


def routes(services: Services, admin_key: Secret[str] | None) -> list[web.RouteDef]:
    """Return the routes to serve: none without an admin key."""
    if admin_key is None:
        return []
    api = AdminApi(services)
    guard = Guard(services, admin_key)
    user, team = f"{PREFIX}/users/{{username}}", f"{PREFIX}/teams/{{team}}"
    return [
        web.get(f"{PREFIX}/users", guard(api.list_users)),
        web.post(f"{PREFIX}/users", guard(api.create_user)),
        web.get(user, guard(api.get_user)),
        web.delete(user, guard(api.delete_user)),
        web.get(f"{user}/keys", guard(api.list_keys)),
        web.post(f"{user}/keys", guard(api.create_key)),
        web.delete(f"{user}/keys/{{key}}", guard(api.revoke_key)),
        web.get(f"{PREFIX}/teams", guard(api.list_teams)),
        web.post(f"{PREFIX}/teams", guard(api.create_team)),
        web.get(team, guard(api.get_team)),
        web.delete(team, guard(api.delete_team)),
        web.put(f"{team}/members/{{username}}", guard(api.set_member)),
        web.delete(f"{team}/members/{{username}}", guard(api.remove_member)),
        web.get(f"{PREFIX}/audit", guard(api.list_audit)),
    ]


class Guard:
    """Lets admins through, and says which field was wrong."""

    def __init__(self, services: Services, admin_key: Secret[str]) -> None:
        self._services = services
        self._admin_key = admin_key

    def __call__(self, action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return the handler of an action; the action is told who asks."""

        async def handle(request: web.Request) -> web.Response:
            who = await self._who(request)
            try:
                return await action(request, who)
            except FieldFault as fault:
                return _json({"error": fault.message, "field": fault.field}, fault.status)

        return handle

    async def _who(self, request: web.Request) -> str:
        given = key_of(request.headers.get("Authorization", ""))
        if given is None:
            raise ApiError(REFUSAL, status=401)
        if hmac.compare_digest(given.encode(), self._admin_key.reveal().encode()):
            return ADMIN_KEY_NAME
        viewer = await find_viewer(self._services.store, given)
        if viewer is None:
            raise ApiError(REFUSAL, status=401)
        if not viewer.admin:
            raise ApiError(REFUSAL, status=403)
        return viewer.username


class AdminApi:
    """What an admin may do; each method answers one route, `who` goes into the audit trail."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._blobs = services.blobs

    async def list_users(self, request: web.Request, _who: str) -> web.Response:
        """GET /users."""
        after, limit = read_page(read_query(request, PAGING))
        async with self._store.read() as connection:
            found = await people.list_people(connection, after_id=after, limit=limit + 1)
        return _page("users", [(each.id, _person(each)) for each in found], limit)

    async def create_user(self, request: web.Request, who: str) -> web.Response:
        """POST /users: the answer is the one time that the key is shown."""
        body = await read_body(request, NewUser)
        body.check()
        async with self._store.write() as connection:
            user_id = await users.create_user(
                connection,
                body.username,
                email=body.email,
                admin=body.admin,
                service=body.service,
            )
            key = await _add_key(connection, user_id, body.api_key, "made with the user")
            made = await people.require_person(connection, body.username)
            await audit.note(
                connection,
                who,
                "user.create",
                None,
                body.username,
                admin=body.admin,
                service=body.service,
            )
        return _json({**_person(made), "api_key": key}, 201)

    async def get_user(self, request: web.Request, _who: str) -> web.Response:
        """GET /users/{username}."""
        async with self._store.read() as connection:
            found = await people.require_person(connection, request.match_info["username"])
            teams = await people.teams_of(connection, found.id)
        shown = [{"name": name, "role": role} for name, role in teams.items()]
        return _json({**_person(found), "teams": shown}, 200)

    async def delete_user(self, request: web.Request, who: str) -> web.Response:
        """DELETE /users/{username}: what the user made in teams stays there."""
        force = read_flag(read_query(request, ["force"]), "force")
        async with self._store.write() as connection:
            found = await people.require_person(connection, request.match_info["username"])
            entity = await people.personal_entity(connection, found.id)
            await _give_up(connection, entity, f"user {found.username!r}", force=force)
            await people.delete_person(connection, found.id)
            await audit.note(connection, who, "user.delete", None, found.username, force=force)
        await empty_garbage(self._store, self._blobs)
        return web.Response(status=204)

    async def list_keys(self, request: web.Request, _who: str) -> web.Response:
        """GET /users/{username}/keys: those in force, never the keys themselves."""
        after, limit = read_page(read_query(request, PAGING))
        async with self._store.read() as connection:
            found = await people.require_person(connection, request.match_info["username"])
            keys = await people.keys_of(connection, found.id, after_id=after, limit=limit + 1)
        return _page("keys", [(each.id, msgspec.structs.asdict(each)) for each in keys], limit)

    async def create_key(self, request: web.Request, who: str) -> web.Response:
        """POST /users/{username}/keys."""
        body = await read_body(request, NewKey, optional=True)
        body.check()
        async with self._store.write() as connection:
            found = await people.require_person(connection, request.match_info["username"])
            key = await _add_key(connection, found.id, body.api_key, body.description)
            made = await people.key_info(connection, key)
            await audit.note(
                connection, who, "key.create", None, found.username, id=made.id, hint=made.hint
            )
        return _json({**msgspec.structs.asdict(made), "api_key": key}, 201)

    async def revoke_key(self, request: web.Request, who: str) -> web.Response:
        """DELETE /users/{username}/keys/{key}: it is refused from the next request on."""
        number = read_number(request.match_info["key"])
        async with self._store.write() as connection:
            found = await people.require_person(connection, request.match_info["username"])
            if number is None or not await users.revoke_api_key(
                connection, number, user_id=found.id
            ):
                raise ApiError(f"user {found.username!r} has no such key in force", status=404)
            await audit.note(connection, who, "key.revoke", None, found.username, id=number)
        return web.Response(status=204)

    async def list_teams(self, request: web.Request, _who: str) -> web.Response:
        """GET /teams."""
        after, limit = read_page(read_query(request, PAGING))
        async with self._store.read() as connection:
            found = await people.list_teams(connection, after_id=after, limit=limit + 1)
        return _page("teams", [(each.id, _team(each)) for each in found], limit)

    async def create_team(self, request: web.Request, who: str) -> web.Response:
        """POST /teams."""
        body = await read_body(request, NewTeam)
        body.check()
        async with self._store.write() as connection:
            team_id = await users.create_team(connection, body.name)
            for number, member in enumerate(body.members):
                user_id = await users.find_user(connection, member.username)
                if user_id is None:
                    field = f"members[{number}].username"
                    raise FieldFault(f"there is no user {member.username!r}", field)
                await people.set_member(connection, team_id, user_id, ROLES[member.role])
            made = await _whole_team(connection, body.name)
            await audit.note(
                connection,
                who,
                "team.create",
                None,
                body.name,
                members=[member.username for member in body.members],
            )
        return _json(made, 201)

    async def get_team(self, request: web.Request, _who: str) -> web.Response:
        """GET /teams/{team}."""
        async with self._store.read() as connection:
            return _json(await _whole_team(connection, request.match_info["team"]), 200)

    async def delete_team(self, request: web.Request, who: str) -> web.Response:
        """DELETE /teams/{team}."""
        force = read_flag(read_query(request, ["force"]), "force")
        async with self._store.write() as connection:
            team = await people.require_team(connection, request.match_info["team"])
            await _give_up(connection, team.id, f"team {team.name!r}", force=force)
            await people.delete_team(connection, team.id)
            await audit.note(connection, who, "team.delete", None, team.name, force=force)
        await empty_garbage(self._store, self._blobs)
        return web.Response(status=204)

    async def set_member(self, request: web.Request, who: str) -> web.Response:
        """PUT /teams/{team}/members/{username}."""
        body = await read_body(request, Membership)
        async with self._store.write() as connection:
            team = await people.require_team(connection, request.match_info["team"])
            found = await people.require_person(connection, request.match_info["username"])
            await people.set_member(connection, team.id, found.id, body.as_role())
            await audit.note(
                connection,
                who,
                "team.set_member",
                None,
                team.name,
                username=found.username,
                role=body.role,
            )
        return _json({"username": found.username, "role": body.role}, 200)

    async def remove_member(self, request: web.Request, who: str) -> web.Response:
        """DELETE /teams/{team}/members/{username}."""
        async with self._store.write() as connection:
            team = await people.require_team(connection, request.match_info["team"])
            found = await people.require_person(connection, request.match_info["username"])
            if not await people.remove_member(connection, team.id, found.id):
                raise ApiError(f"{found.username!r} is no member of {team.name!r}", status=404)
            await audit.note(
                connection, who, "team.remove_member", None, team.name, username=found.username
            )
        return web.Response(status=204)

    async def list_audit(self, request: web.Request, _who: str) -> web.Response:
        """GET /audit: the newest first."""
        query = read_query(request, [*PAGING, "entity"])
        after, limit = read_page(query)
        async with self._store.read() as connection:
            found = await audit.entries(
                connection,
                entity=query.get("entity"),
                before_id=after or None,
                limit=limit + 1,
            )
        return _page("entries", [(each.id, msgspec.structs.asdict(each)) for each in found], limit)


async def _add_key(
    connection: AsyncConnection, user_id: int, given: str | None, description: str | None
) -> str:
    if given is None:
        return await users.create_api_key(connection, user_id, description)
    if not await users.add_api_key(connection, user_id, given, description):
        raise ApiError("this key was revoked once and stays so; take a fresh one", status=409)
    return given


async def _give_up(connection: AsyncConnection, entity_id: int, owner: str, *, force: bool) -> None:
    """Throw away the blobs that go with an entity; 409 when it still owns something."""
    owned = await holdings.count_holdings(connection, entity_id)
    if owned and not force:
        counts = ", ".join(f"{count} {what}" for what, count in owned.items())
        raise ApiError(f"{owner} owns {counts}; add ?force=true to delete them too", status=409)
    await throw_away(connection, await holdings.blobs_of(connection, entity_id))


async def _whole_team(connection: AsyncConnection, name: str) -> Json:
    team = await people.require_team(connection, name)
    members = await people.members_of(connection, team.id)
    return {
        **_team(team),
        "members": [{"username": who, "role": role} for who, role in members.items()],
    }


def _person(person: people.Person) -> Json:
    return {
        "username": person.username,
        "email": person.email,
        "admin": person.admin,
        "service": person.service,
        "created_at": person.created_at,
    }


def _team(team: people.Team) -> Json:
    return {"name": team.name, "created_at": team.created_at}


def _page(name: str, rows: list[tuple[int, Json]], limit: int) -> web.Response:
    """Answer with a page; its `next` is the `after` of the page behind it, null at the end."""
    shown = rows[:limit]
    more = str(shown[-1][0]) if len(rows) > limit else None
    return _json({name: [row for _, row in shown], "next": more}, 200)


def _json(body: Any, status: int) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )
