"""Queues and their resource configs: made, read, changed and deleted."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Select, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number
from launch_async.server.projects import ProjectRow
from launch_async.server.run_specs import ARGS_KEYS, RESOURCES, QueueDefaults, read_object
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.people import entities, users
from launch_async.server.store.tables.queues import resource_configs, run_queues
from launch_async.server.store.tables.runs import projects
from launch_async.server.template_variables import parse_variables, schema_warnings

QUEUE: Final = "RunQueue"
CONFIG: Final = "DefaultResourceConfig"
MAX_NAME: Final = 64
NO_LINKS: Final = '{"links":[]}'


class QueueRow(msgspec.Struct, frozen=True):
    """A queue with the names that lead to it."""

    id: int
    project_id: int
    entity_id: int
    entity_name: str
    project_name: str
    name: str
    access: str
    prioritization_mode: str
    config_id: int | None
    links: str
    created_by: str | None
    created_at: datetime
    updated_at: datetime


class ConfigRow(msgspec.Struct, frozen=True):
    """A resource config; both documents are JSON text."""

    id: int
    resource: str
    config: str
    template_variables: str


class NewConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A resource config that was checked and can be stored."""

    resource: str
    config: dict[str, Any]
    variables: dict[str, Any]

    @property
    def warnings(self) -> list[str]:
        """What is legal but probably not meant."""
        return schema_warnings(self.variables, self.config)


QUEUE_SELECT = (
    select(
        run_queues.c.id,
        run_queues.c.project_id,
        projects.c.entity_id,
        entities.c.name.label("entity_name"),
        projects.c.name.label("project_name"),
        run_queues.c.name,
        run_queues.c.access,
        run_queues.c.prioritization_mode,
        run_queues.c.config_id,
        run_queues.c.external_links.label("links"),
        users.c.username.label("created_by"),
        run_queues.c.created_at,
        run_queues.c.updated_at,
    )
    .join(projects, projects.c.id == run_queues.c.project_id)
    .join(entities, entities.c.id == projects.c.entity_id)
    .outerjoin(users, users.c.id == run_queues.c.created_by)
)


async def list_queues(connection: AsyncConnection, project_id: int) -> list[QueueRow]:
    """Return a project's queues, the oldest first."""
    statement = QUEUE_SELECT.where(run_queues.c.project_id == project_id).order_by(run_queues.c.id)
    return [_queue(row) for row in await connection.execute(statement)]


async def find_queue(connection: AsyncConnection, project_id: int, name: str) -> QueueRow | None:
    """Return a project's queue by its name."""
    return await _one(
        connection,
        QUEUE_SELECT.where(run_queues.c.project_id == project_id, run_queues.c.name == name),
    )


async def find_queue_by_id(
    connection: AsyncConnection, request: Request, queue_id: str
) -> QueueRow | None:
    """Return a queue by its opaque id, or None when it is missing or not the viewer's to see."""
    try:
        number = decode_number(queue_id, QUEUE)
    except ApiError:
        return None
    queue = await _one(connection, QUEUE_SELECT.where(run_queues.c.id == number))
    if queue is None or queue.entity_name not in request.viewer.entities:
        return None
    return queue


async def require_queue(
    connection: AsyncConnection, project: ProjectRow | None, entity: str, name: str
) -> QueueRow:
    """Return a queue by name; the 404 says what to do about a missing one."""
    queue = None if project is None else await find_queue(connection, project.id, name)
    if queue is None:
        raise ApiError(
            f"queue {name!r} of entity {entity!r} not found; "
            f"make it with wandb.Api().create_run_queue({name!r}, type=..., entity={entity!r})",
            status=404,
        )
    return queue


async def find_config(
    connection: AsyncConnection, entity_id: int, config_id: int
) -> ConfigRow | None:
    """Return a resource config of this entity."""
    rows = await connection.execute(
        select(
            resource_configs.c.id,
            resource_configs.c.resource,
            resource_configs.c.config,
            resource_configs.c.template_variables,
        ).where(resource_configs.c.id == config_id, resource_configs.c.entity_id == entity_id)
    )
    row = rows.one_or_none()
    return None if row is None else ConfigRow(*row)


async def queue_defaults(connection: AsyncConnection, queue: QueueRow) -> QueueDefaults:
    """Return what a queue gives to each item."""
    found = None
    if queue.config_id is not None:
        found = await find_config(connection, queue.entity_id, queue.config_id)
    prioritized = queue.prioritization_mode == "V0"
    if found is None:
        return QueueDefaults(
            name=queue.name, resource=None, resource_args={}, variables={}, prioritized=prioritized
        )
    return QueueDefaults(
        name=queue.name,
        resource=found.resource,
        resource_args=msgspec.json.decode(found.config).get("resource_args") or {},
        variables=parse_variables(msgspec.json.decode(found.template_variables)),
        prioritized=prioritized,
    )


def check_config(resource: str, config: str, template_variables: str | None) -> NewConfig:
    """Check a resource config; the ApiError names what is wrong with it."""
    if resource not in RESOURCES:
        raise ApiError(f"resource type {resource!r} is not one of {', '.join(RESOURCES)}")
    document = read_object(config, "the resource config")
    args = document.setdefault("resource_args", {})
    known = ARGS_KEYS.get(resource, (resource,))
    if not isinstance(args, dict) or not set(args) <= set(known):
        raise ApiError(
            f"the config of a {resource} queue has the form "
            f'{{"resource_args": {{"{resource}": {{...}}}}}}'
        )
    for key, value in args.items():
        if not isinstance(value, dict):
            raise ApiError(f"resource_args.{key} of the config must be an object")
    variables = read_object(template_variables or "{}", "templateVariables")
    parse_variables(variables)
    return NewConfig(resource=resource, config=document, variables=variables)


async def create_config(
    connection: AsyncConnection, entity_id: int, new: NewConfig, *, now: datetime
) -> int:
    """Store a resource config and return its row id."""
    made = await connection.execute(
        insert(connection, resource_configs)
        .values(
            entity_id=entity_id,
            resource=new.resource,
            config=msgspec.json.encode(new.config).decode(),
            template_variables=msgspec.json.encode(new.variables).decode(),
            created_at=now,
        )
        .returning(resource_configs.c.id)
    )
    return int(made.scalar_one())


async def create_queue(
    connection: AsyncConnection,
    request: Request,
    project: ProjectRow,
    *,
    name: str,
    access: str,
    prioritization_mode: str,
    config_id: int | None,
) -> int:
    """Store a queue and return its row id; 409 when the project has one of that name."""
    check_queue_name(name)
    if (
        config_id is not None
        and await find_config(connection, project.entity_id, config_id) is None
    ):
        raise ApiError("the queue's resource config was not found in its entity", status=404)
    statement = (
        insert(connection, run_queues)
        .values(
            project_id=project.id,
            name=name,
            access=access,
            prioritization_mode=prioritization_mode,
            config_id=config_id,
            external_links=NO_LINKS,
            created_by=request.viewer.user_id,
            created_at=request.now(),
            updated_at=request.now(),
        )
        .on_conflict_do_nothing()
        .returning(run_queues.c.id)
    )
    made = (await connection.execute(statement)).scalar_one_or_none()
    if made is None:
        raise ApiError(
            f"entity {project.entity_name!r} has a queue {name!r} already; "
            "take another name, or change that queue with upsert_run_queue",
            status=409,
        )
    return int(made)


async def upsert_queue(
    connection: AsyncConnection,
    request: Request,
    project: ProjectRow,
    *,
    name: str,
    config: NewConfig,
    prioritization_mode: str | None,
    external_links: str | None,
) -> int:
    """Make the queue or change it; None leaves the mode and the links as they are."""
    config_id = await create_config(connection, project.entity_id, config, now=request.now())
    before = await find_queue(connection, project.id, name)
    if before is None:
        queue_id = await create_queue(
            connection,
            request,
            project,
            name=name,
            access="PROJECT",
            prioritization_mode=prioritization_mode or "DISABLED",
            config_id=config_id,
        )
    else:
        queue_id = before.id
    changes: dict[str, Any] = {"config_id": config_id, "updated_at": request.now()}
    if prioritization_mode is not None:
        changes["prioritization_mode"] = prioritization_mode
    if external_links is not None:
        changes["external_links"] = _check_links(external_links)
    await connection.execute(update(run_queues).where(run_queues.c.id == queue_id).values(changes))
    if before is not None and before.config_id is not None:
        await _drop_unused(connection, [before.config_id])
    return queue_id


async def delete_queues(connection: AsyncConnection, queues: Sequence[QueueRow]) -> None:
    """Delete queues with their items; runs that were launched go on."""
    await connection.execute(
        delete(run_queues).where(run_queues.c.id.in_([queue.id for queue in queues]))
    )
    await _drop_unused(connection, [q.config_id for q in queues if q.config_id is not None])


def check_queue_name(name: str) -> None:
    """Raise a 400 for a name that W&B's client would refuse, or that could not stand in a path."""
    if not 1 <= len(name) <= MAX_NAME:
        raise ApiError(f"a queue name has 1 to {MAX_NAME} characters, not {len(name)}")
    if "/" in name or not name.isprintable():
        raise ApiError(f"a queue name may not contain '/' or control characters: {name!r}")


def _check_links(text: str) -> str:
    links = read_object(text, "externalLinks").get("links")
    if not isinstance(links, list):
        raise ApiError('externalLinks has the form {"links": [{"label": ..., "url": ...}]}')
    return text


async def _drop_unused(connection: AsyncConnection, config_ids: Sequence[int]) -> None:
    used = exists().where(run_queues.c.config_id == resource_configs.c.id)
    await connection.execute(
        delete(resource_configs).where(resource_configs.c.id.in_(config_ids), ~used)
    )


async def _one(connection: AsyncConnection, statement: Select[*tuple[Any, ...]]) -> QueueRow | None:
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _queue(row)


def _queue(row: Any) -> QueueRow:
    return QueueRow(*row)
