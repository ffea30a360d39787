"""Who asks, what entities there are, and what this server can do."""

from collections.abc import Sequence
from typing import Any

from ariadne import ObjectType, QueryType, SchemaBindable
from sqlalchemy import select

from launch_async.server.access import Role, Viewer
from launch_async.server.context import Info, Request, request_of
from launch_async.server.ids import encode_id
from launch_async.server.projects import EntityRow, find_entity
from launch_async.server.run_rows import USER_COLUMNS, UserRow
from launch_async.server.store.tables.people import api_keys, memberships, users

FEATURES = (
    "TOTAL_COUNT_IN_FILE_CONNECTION",
    "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION",
    "ARTIFACT_V2_DOWNLOAD_HANDLER_SUPPORTS_ARTIFACT_ID",
    "FILESTREAM_GZIP",
    "STRUCTURED_CONSOLE_LOGS",  # else a level is guessed from how a line begins
    "MARK_RUN_FILES_UPLOADED",
    "CLIENT_IDS",
    "ARTIFACT_TAGS",
    "LARGE_FILENAMES",
    "ARTIFACT_COLLECTIONS_FILTERING_SORTING",
    "ARTIFACT_MEMBERSHIP_IN_LINK_ARTIFACT_RESPONSE",
)
"""Names by which the client switches things on; only what is served stands here."""

NEWEST_CLIENT = "0.31.99"
FLAGS = '{"code_saving_enabled":true}'

query = QueryType()
user = ObjectType("User")
entity = ObjectType("Entity")
BINDABLES: list[SchemaBindable] = [query, user, entity]

Json = dict[str, Any]


@query.field("viewer")
async def resolve_viewer(_: None, info: Info) -> Viewer:
    """Return who the key belongs to."""
    return request_of(info).viewer


@query.field("serverInfo")
async def resolve_server_info(_: None, _info: Info) -> Json:
    """Tell what this server can do."""
    features = [{"name": name, "is_enabled": True} for name in FEATURES]
    return {"features": features, "cli_version_info": {"max_cli_version": NEWEST_CLIENT}}


@query.field("entity")
async def resolve_entity(_: None, info: Info, name: str | None = None) -> EntityRow | None:
    """Return an entity that the viewer belongs to, null for any other."""
    request = request_of(info)
    async with request.store.read() as connection:
        return await find_entity(connection, request, name)


@query.field("users")
async def resolve_users(_: None, info: Info, query: str | None = None) -> Json:
    """Return users by name or address. Only an admin sees others than themselves."""
    request = request_of(info)
    statement = select(*user_columns()).order_by(users.c.id)
    if query:
        statement = statement.where((users.c.username == query) | (users.c.email == query))
    if not request.viewer.admin:
        statement = statement.where(users.c.id == request.viewer.user_id)
    async with request.store.read() as connection:
        rows = (await connection.execute(statement)).all()
    return {"edges": [{"node": UserRow(*row)} for row in rows]}


@user.field("id")
def resolve_user_id(person: Viewer | UserRow, _info: Info) -> str:
    """Return the opaque id."""
    return encode_id("User", _id_of(person))


@user.field("flags")
def resolve_user_flags(_person: Viewer | UserRow, _info: Info) -> str:
    """Let the client upload the main script with a run."""
    return FLAGS


@user.field("entity")
def resolve_user_entity(person: Viewer | UserRow, _info: Info) -> str:
    """Return the entity that is taken when a client names none."""
    return person.entity if isinstance(person, Viewer) else person.username


@user.field("teams")
async def resolve_user_teams(person: Viewer | UserRow, info: Info) -> Json:
    """Return the viewer's entities but for the personal one; nobody else's."""
    request = request_of(info)
    if not _is_viewer(request, person):
        return {"edges": []}
    teams = [name for name in request.viewer.entities if name != person.username]
    async with request.store.read() as connection:
        found = [await find_entity(connection, request, name) for name in teams]
    return {"edges": [{"node": team} for team in found]}


@user.field("apiKeys")
async def resolve_user_api_keys(person: Viewer | UserRow, info: Info) -> Json:
    """Return what the viewer's keys are called; nobody else's."""
    request = request_of(info)
    if not _is_viewer(request, person) or request.viewer.run is not None:
        return {"edges": []}
    statement = (
        select(api_keys.c.id, api_keys.c.hint, api_keys.c.description)
        .where(api_keys.c.user_id == request.viewer.user_id, api_keys.c.revoked_at.is_(None))
        .order_by(api_keys.c.id)
    )
    async with request.store.read() as connection:
        rows = (await connection.execute(statement)).all()
    nodes = [
        {
            "id": encode_id("ApiKey", row.id),
            "name": f"...{row.hint}",
            "description": row.description,
        }
        for row in rows
    ]
    return {"edges": [{"node": node} for node in nodes]}


@user.field("organizations")
def resolve_user_organizations(_person: Any, _info: Info) -> list[Any]:
    """There are none."""
    return []


@entity.field("id")
def resolve_entity_id(row: EntityRow, _info: Info) -> str:
    """Return the opaque id."""
    return encode_id("Entity", row.id)


@entity.field("isTeam")
def resolve_is_team(row: EntityRow, _info: Info) -> bool:
    """Tell teams from people."""
    return row.kind == "team"


@entity.field("entityType")
def resolve_entity_type(row: EntityRow, _info: Info) -> str:
    """Return user or team."""
    return row.kind


@entity.field("members")
async def resolve_members(row: EntityRow, info: Info) -> list[Json]:
    """Return who belongs to the entity."""
    statement = (
        select(*user_columns(), users.c.service, memberships.c.role)
        .join(memberships, memberships.c.user_id == users.c.id)
        .where(memberships.c.entity_id == row.id)
        .order_by(users.c.id)
    )
    async with request_of(info).store.read() as connection:
        rows = (await connection.execute(statement)).all()
    return [
        {
            "id": encode_id("User", member.id),
            "admin": member.role == Role.ADMIN.word,
            "role": member.role,
            "pending": False,
            "email": member.email,
            "username": member.username,
            "name": member.name,
            "account_type": "SERVICE" if member.service else "MEMBER",
        }
        for member in rows
    ]


@entity.field("user")
async def resolve_entity_user(row: EntityRow, info: Info) -> UserRow | None:
    """Return whose personal entity this is."""
    request = request_of(info)
    return None if row.user_id is None else await load_user(request, row.user_id)


@entity.field("available")
@entity.field("readOnly")
@entity.field("readOnlyAdmin")
@entity.field("privateOnly")
@entity.field("xxhashDigestsEnabled")
@entity.field("isPaid")
def resolve_entity_flag(_row: EntityRow, _info: Info) -> bool:
    """None of these exist here."""
    return False


@entity.field("codeSavingEnabled")
def resolve_code_saving(_row: EntityRow, _info: Info) -> bool:
    """Scripts may be uploaded with their runs."""
    return True


async def load_user(request: Request, user_id: int) -> UserRow | None:
    """Return a user by row id."""
    async with request.store.read() as connection:
        rows = await connection.execute(select(*user_columns()).where(users.c.id == user_id))
        row = rows.one_or_none()
    return None if row is None else UserRow(*row)


def user_columns() -> Sequence[Any]:
    """Return the columns of a UserRow."""
    return [users.c.id, *(users.c[name] for name in USER_COLUMNS)]


def _is_viewer(request: Request, person: Viewer | UserRow) -> bool:
    return _id_of(person) == request.viewer.user_id


def _id_of(person: Viewer | UserRow) -> int:
    return person.user_id if isinstance(person, Viewer) else person.id
