"""Entities and projects: who may reach them, and how their names are matched."""

from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.access import Role, require_role
from launch_async.server.context import Request, utc_now
from launch_async.server.errors import ApiError
from launch_async.server.store.engine import insert
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.runs import projects

LAUNCH_PROJECT = "model-registry"
"""The project that holds an entity's queues; agents ask for it before anybody made it."""

DEFAULT_PROJECT = "uncategorized"
MAX_NAME_LENGTH = 128
FORBIDDEN = frozenset("/\\#?%:")
"""W&B's own rule: these would break paths, addresses and run ids."""


class EntityRow(msgspec.Struct, frozen=True):
    """A user's or a team's name space."""

    id: int
    name: str
    kind: str
    user_id: int | None
    created_at: datetime


class ProjectRow(msgspec.Struct, frozen=True):
    """A project together with its entity."""

    id: int
    entity_id: int
    entity_name: str
    name: str
    description: str | None
    access: str | None
    created_by: int | None
    created_at: datetime
    entity_kind: str
    entity_user_id: int | None
    entity_created_at: datetime

    @property
    def entity(self) -> EntityRow:
        """Whose project this is."""
        return EntityRow(
            self.entity_id,
            self.entity_name,
            self.entity_kind,
            self.entity_user_id,
            self.entity_created_at,
        )


PROJECT_COLUMNS: Final = (
    projects.c.id,
    projects.c.entity_id,
    entities.c.name.label("entity_name"),
    projects.c.name,
    projects.c.description,
    projects.c.access,
    projects.c.created_by,
    projects.c.created_at,
    entities.c.kind,
    entities.c.user_id,
    entities.c.created_at,
)
PROJECT_SELECT = select(*PROJECT_COLUMNS).join(entities, entities.c.id == projects.c.entity_id)

PROJECT_BY_NAME: Final = PROJECT_SELECT.where(
    projects.c.entity_id == bindparam("entity"), projects.c.name_folded == bindparam("folded")
)

ENTITY_BY_NAME: Final = often(
    select(
        entities.c.id, entities.c.name, entities.c.kind, entities.c.user_id, entities.c.created_at
    ).where(entities.c.name == bindparam("name")),
    alone=True,
)


async def resolve_entity(
    connection: AsyncConnection, request: Request, name: str | None, *, need: Role = Role.VIEWER
) -> EntityRow:
    """Return the entity called `name` (None or "": the viewer's own).

    403 when there is none, or the viewer has not this role in it, so that names do not leak.
    """
    require_role(request.viewer, name or request.viewer.entity, need)
    entity = await find_entity(connection, request, name)
    if entity is None:  # deleted since the key was read
        raise ApiError(f"entity {name} not found", status=404)
    return entity


async def find_entity(
    connection: AsyncConnection, request: Request, name: str | None
) -> EntityRow | None:
    """Return the entity, or None when the viewer may not know it."""
    wanted = name or request.viewer.entity
    if wanted not in request.viewer.entities:
        return None
    rows = await connection.execute(ENTITY_BY_NAME, {"name": wanted})
    row = rows.one_or_none()
    return None if row is None else EntityRow(*row)


async def get_project(
    connection: AsyncConnection, entity_id: int, name: str | None
) -> ProjectRow | None:
    """Return the project, whatever the case of its name; None when there is none."""
    folded = (name or DEFAULT_PROJECT).casefold()
    rows = await connection.execute(PROJECT_BY_NAME, {"entity": entity_id, "folded": folded})
    return _project(rows.one_or_none())


async def get_project_by_id(connection: AsyncConnection, project_id: int) -> ProjectRow | None:
    """Return the project with this row id. The caller checks that the viewer may see it."""
    rows = await connection.execute(PROJECT_SELECT.where(projects.c.id == project_id))
    return _project(rows.one_or_none())


async def find_project(
    connection: AsyncConnection, request: Request, entity: str | None, name: str | None
) -> ProjectRow | None:
    """Return the project by names, or None when it is missing or not the viewer's to see."""
    found = await find_entity(connection, request, entity)
    return None if found is None else await get_project(connection, found.id, name)


async def require_project(
    connection: AsyncConnection, request: Request, entity: str | None, name: str | None
) -> ProjectRow:
    """Return the project by names; 404 when it is missing or not the viewer's to see."""
    project = await find_project(connection, request, entity, name)
    if project is None:
        place = entity or request.viewer.entity
        raise ApiError(f"project {place}/{name or DEFAULT_PROJECT} not found", status=404)
    return project


async def ensure_project(
    connection: AsyncConnection, entity_id: int, name: str | None, *, user_id: int | None
) -> ProjectRow:
    """Return the project, made when it is missing. Twice does no harm."""
    wanted = name or DEFAULT_PROJECT
    found = await get_project(connection, entity_id, wanted)
    if found is not None:
        return found
    check_name("project", wanted)
    await connection.execute(
        insert(connection, projects)
        .values(
            entity_id=entity_id,
            name=wanted,
            name_folded=wanted.casefold(),
            created_by=user_id,
            created_at=utc_now(),
        )
        .on_conflict_do_nothing()
    )
    made = await get_project(connection, entity_id, wanted)
    if made is None:
        raise ApiError("the entity of this project is gone", status=404)
    return made


async def list_projects(
    connection: AsyncConnection, entity_id: int, *, after_id: int, limit: int
) -> list[ProjectRow]:
    """Return projects of one entity by row id, from the first past `after_id`."""
    rows = await connection.execute(
        PROJECT_SELECT.where(projects.c.entity_id == entity_id, projects.c.id > after_id)
        .order_by(projects.c.id)
        .limit(limit)
    )
    return [project for row in rows if (project := _project(row)) is not None]


def check_name(kind: str, name: str) -> None:
    """Raise a 400 for a name that could not stand in a path or on a page."""
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ApiError(f"a {kind} name has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}")
    if name in {".", ".."}:
        raise ApiError(f"{name!r} is a step in a path and no {kind} name")
    if not FORBIDDEN.isdisjoint(name) or not name.isprintable():
        signs = " ".join(sorted(FORBIDDEN))
        raise ApiError(f"a {kind} name may not contain {signs} or control characters: {name!r}")


def _project(row: Any) -> ProjectRow | None:
    return None if row is None else ProjectRow(*row)
