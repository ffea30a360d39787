"""Projects, under each of the names by which clients ask for them."""

from typing import Any

from ariadne import MutationType, ObjectType, QueryType, SchemaBindable
from sqlalchemy import update

from launch_async.server import projects as rules
from launch_async.server.access import Role, require_role
from launch_async.server.context import Info, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number, encode_id, read_number
from launch_async.server.projects import EntityRow, ProjectRow
from launch_async.server.resolvers.viewer import load_user
from launch_async.server.run_rows import UserRow
from launch_async.server.store.tables.runs import projects

DEFAULT_PAGE = 50
MAX_PAGE = 1000

query = QueryType()
mutation = MutationType()
project = ObjectType("Project")
entity = ObjectType("Entity")
BINDABLES: list[SchemaBindable] = [query, mutation, project, entity]

Json = dict[str, Any]


@query.field("project")
@query.field("model")
async def resolve_project(
    _: None, info: Info, name: str | None = None, entity_name: str | None = None
) -> ProjectRow | None:
    """Return a project, null when it is missing or not the viewer's to see."""
    request = request_of(info)
    async with request.store.read() as connection:
        return await rules.find_project(connection, request, entity_name, name)


@query.field("models")
async def resolve_models(
    _: None,
    info: Info,
    entity_name: str | None = None,
    after: str | None = None,
    first: int | None = None,
    **_ignored: Any,
) -> Json:
    """Return the projects of an entity."""
    request = request_of(info)
    async with request.store.read() as connection:
        owner = await rules.resolve_entity(connection, request, entity_name)
    return await _page(info, owner, after, first)


@entity.field("projects")
async def resolve_entity_projects(
    row: EntityRow, info: Info, after: str | None = None, first: int | None = None
) -> Json:
    """Return the projects of this entity."""
    return await _page(info, row, after, first)


@entity.field("project")
async def resolve_entity_project(row: EntityRow, info: Info, name: str) -> ProjectRow | None:
    """Return one project of this entity."""
    async with request_of(info).store.read() as connection:
        return await rules.get_project(connection, row.id, name)


@mutation.field("upsertModel")
async def resolve_upsert_model(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Make a project, or change its description and access."""
    request = request_of(info)
    async with request.store.write() as connection:
        owner = await rules.resolve_entity(
            connection, request, input.get("entity_name"), need=Role.MEMBER
        )
        if input.get("id"):
            found = await rules.get_project_by_id(connection, decode_number(input["id"], "Project"))
            if found is None or found.entity_id != owner.id:
                raise ApiError("project not found", status=404)
        else:
            found = await rules.get_project(connection, owner.id, input.get("name"))
        row = found or await rules.ensure_project(
            connection, owner.id, input.get("name"), user_id=request.viewer.user_id
        )
        changes = {
            name: input[name] for name in ("description", "access") if input.get(name) is not None
        }
        if changes:
            await connection.execute(
                update(projects).where(projects.c.id == row.id).values(**changes)
            )
            row = await rules.get_project_by_id(connection, row.id) or row
    return {"project": row, "model": row, "inserted": found is None}


@project.field("id")
def resolve_id(row: ProjectRow, _info: Info) -> str:
    """Return the opaque id."""
    return encode_id("Project", row.id)


@project.field("internalId")
def resolve_internal_id(row: ProjectRow, _info: Info) -> str:
    """Return the row id; the client reads it as a number."""
    return str(row.id)


@project.field("entity")
def resolve_project_entity(row: ProjectRow, info: Info) -> EntityRow:
    """Return whose project this is."""
    require_role(request_of(info).viewer, row.entity_name, Role.VIEWER)
    return row.entity


@project.field("user")
async def resolve_project_user(row: ProjectRow, info: Info) -> UserRow | None:
    """Return who made the project."""
    return None if row.created_by is None else await load_user(request_of(info), row.created_by)


@project.field("updatedAt")
def resolve_updated_at(row: ProjectRow, _info: Info) -> Any:
    """Return the only moment that is known of a project."""
    return row.created_at


@project.field("readOnly")
@project.field("isBenchmark")
def resolve_project_flag(_row: ProjectRow, _info: Info) -> bool:
    """A member may always write."""
    return False


def page_size(first: int | None) -> int:
    """Return how many rows a page has; 400 for fewer than none."""
    if first is not None and first < 0:
        raise ApiError("a page cannot have fewer than 0 entries")
    return min(DEFAULT_PAGE if first is None else first, MAX_PAGE)


def page_start(cursor: str | None) -> int:
    """Return the number behind a cursor, 0 for the first page; 400 when it is not ours."""
    if not cursor:
        return 0
    number = read_number(cursor)
    if number is None:
        raise ApiError(f"{cursor!r} is not a cursor of this server")
    return number


def connection_of(nodes: list[Any], cursors: list[str], *, has_next: bool, **more: Any) -> Json:
    """Shape a page: edges with their cursors, and where to go on."""
    edges = [{"node": node, "cursor": cursor} for node, cursor in zip(nodes, cursors, strict=True)]
    end = cursors[-1] if cursors else None
    return {"edges": edges, "page_info": {"end_cursor": end, "has_next_page": has_next}, **more}


async def _page(info: Info, owner: EntityRow, after: str | None, first: int | None) -> Json:
    size = page_size(first)
    async with request_of(info).store.read() as connection:
        rows = await rules.list_projects(
            connection, owner.id, after_id=page_start(after), limit=size + 1
        )
    shown = rows[:size]
    return connection_of(shown, [str(row.id) for row in shown], has_next=len(rows) > size)
