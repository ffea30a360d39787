"""Queues: made, read, changed, paused and deleted."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Select, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number
from launch_async.server.projects import ProjectRow
from launch_async.server.resource_configs import (
    CONFIG_COLUMNS,
    ConfigRow,
    NewConfig,
    create_config,
    drop_unused,
    find_config,
)
from launch_async.server.run_specs import DEFAULT_PRIORITY, QueueDefaults, read_object
from launch_async.server.store.engine import hold, insert
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import entities, users
from launch_async.server.store.tables.queues import (
    open_item,
    queue_items,
    resource_configs,
    run_queues,
)
from launch_async.server.store.tables.runs import projects
from launch_async.server.template_variables import parse_variables

QUEUE: Final = "RunQueue"
MAX_NAME: Final = 64
MAX_QUEUES: Final = 10_000  # in one request; they are read by one statement
NO_LINKS: Final = '{"links":[]}'
LINK_SCHEMES: Final = ("http://", "https://")
PRIORITIZED: Final = "V0"
UNPRIORITIZED: Final = "DISABLED"


class QueueRow(msgspec.Struct, frozen=True):
    """A queue with the names that lead to it."""

    config: ConfigRow | None
    """Read with the queue: by itself it might be gone by then."""
    id: int
    project_id: int
    entity_id: int
    entity_name: str
    project_name: str
    name: str
    access: str
    prioritization_mode: str
    links: str
    paused_at: datetime | None
    concurrency_limit: int | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def config_id(self) -> int | None:
        """The row id of its config."""
        return None if self.config is None else self.config.id


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
        run_queues.c.external_links.label("links"),
        run_queues.c.paused_at,
        run_queues.c.concurrency_limit,
        users.c.username.label("created_by"),
        run_queues.c.created_at,
        run_queues.c.updated_at,
        *CONFIG_COLUMNS,
    )
    .join(projects, projects.c.id == run_queues.c.project_id)
    .join(entities, entities.c.id == projects.c.entity_id)
    .outerjoin(users, users.c.id == run_queues.c.created_by)
    .outerjoin(resource_configs, resource_configs.c.id == run_queues.c.config_id)
)

QUEUE_BY_NAMES: Final = often(
    QUEUE_SELECT.where(
        entities.c.name == bindparam("entity"),
        projects.c.name_folded == bindparam("project"),
        run_queues.c.name == bindparam("queue"),
    ),
    alone=True,
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
    return (await find_queues(connection, request, [queue_id]))[queue_id]


async def find_queues(
    connection: AsyncConnection, request: Request, queue_ids: Sequence[str]
) -> dict[str, QueueRow | None]:
    """Return queues by their opaque ids; None for one that is missing or not the viewer's to see.

    Raises a 400 for more than one request may name.
    """
    if len(queue_ids) > MAX_QUEUES:
        raise ApiError(f"{len(queue_ids)} queues at once are too many; name {MAX_QUEUES} at most")
    numbers = {queue_id: _number(queue_id) for queue_id in queue_ids}
    which = QUEUE_SELECT.where(run_queues.c.id.in_(set(numbers.values())))
    rows = [_queue(row) for row in await connection.execute(which)]
    seen = {queue.id: queue for queue in rows if queue.entity_name in request.viewer.entities}
    return {queue_id: seen.get(number) for queue_id, number in numbers.items()}


async def require_queue(
    connection: AsyncConnection, entity: str, project: str, name: str
) -> QueueRow:
    """Return a queue by names; the 404 says what to do about a missing one.

    The caller checks that the viewer may see the entity.
    """
    names = {"entity": entity, "project": project.casefold(), "queue": name}
    row = (await connection.execute(QUEUE_BY_NAMES, names)).one_or_none()
    if row is None:
        raise no_queue(entity, name)
    return _queue(row)


def no_queue(entity: str, name: str) -> ApiError:
    """Return what is said of a queue that is missing."""
    return ApiError(
        f"queue {name!r} of entity {entity!r} not found; "
        f"make it with wandb.Api().create_run_queue({name!r}, type=..., entity={entity!r})",
        status=404,
    )


async def takes_priorities(connection: AsyncConnection, queue_id: int) -> bool:
    """Tell whether a queue orders its items by priority; its mode stays until we end."""
    mode = await connection.scalar(
        select(run_queues.c.prioritization_mode)
        .where(run_queues.c.id == queue_id)
        .with_for_update(read=True)
    )
    return mode == PRIORITIZED


def queue_defaults(queue: QueueRow) -> QueueDefaults:
    """Return what a queue gives to each item."""
    found = queue.config
    if found is None:
        return QueueDefaults(name=queue.name, resource=None, resource_args={}, variables={})
    return QueueDefaults(
        name=queue.name,
        resource=found.resource,
        resource_args=msgspec.json.decode(found.config).get("resource_args") or {},
        variables=parse_variables(msgspec.json.decode(found.template_variables)),
    )


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
    await hold(connection, "queue", project.id, name)
    before = await find_queue(connection, project.id, name)
    links = None if external_links is None else _check_links(external_links)
    if before is None:
        queue_id = await create_queue(
            connection,
            request,
            project,
            name=name,
            access="PROJECT",
            prioritization_mode=prioritization_mode or UNPRIORITIZED,
            config_id=config_id,
        )
    else:
        queue_id = before.id
    changes: dict[str, Any] = {"config_id": config_id, "updated_at": request.now()}
    if prioritization_mode is not None:
        changes["prioritization_mode"] = prioritization_mode
    if links is not None:
        changes["external_links"] = links
    await connection.execute(update(run_queues).where(run_queues.c.id == queue_id).values(changes))
    if prioritization_mode == UNPRIORITIZED:
        await _forget_priorities(connection, queue_id)
    if before is not None and before.config_id is not None:
        await drop_unused(connection, [before.config_id])
    return queue_id


async def change_queue(
    connection: AsyncConnection,
    queue: QueueRow,
    *,
    paused: bool | None,
    concurrency_limit: int | None,
    now: datetime,
) -> QueueRow:
    """Pause or resume a queue, limit what its agents hold at once (0: no limit); None changes
    nothing.

    What agents have already goes on. Return the queue as it is now.
    """
    changes: dict[str, Any] = {}
    if paused is not None:
        changes["paused_at"] = (queue.paused_at or now) if paused else None
    if concurrency_limit is not None:
        if concurrency_limit < 0:
            raise ApiError(
                f"a concurrency limit of {concurrency_limit} is none; "
                "give 1 or more, or 0 for no limit, or pause the queue"
            )
        changes["concurrency_limit"] = concurrency_limit or None
    if not changes:
        return queue
    changes["updated_at"] = now
    await connection.execute(update(run_queues).where(run_queues.c.id == queue.id).values(changes))
    return msgspec.structs.replace(queue, **changes)


async def delete_queues(connection: AsyncConnection, queues: Sequence[QueueRow]) -> None:
    """Delete queues with their items; runs that were launched go on."""
    await connection.execute(
        delete(run_queues).where(run_queues.c.id.in_([queue.id for queue in queues]))
    )
    await drop_unused(connection, [q.config_id for q in queues if q.config_id is not None])


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
    for number, link in enumerate(links, start=1):
        label, url = (
            (link.get("label"), link.get("url")) if isinstance(link, dict) else (None, None)
        )
        if not isinstance(label, str) or not isinstance(url, str):
            raise ApiError(f"external link {number} needs a label and a url, both of them text")
        if not url.lower().startswith(LINK_SCHEMES):
            raise ApiError(
                f"external link {label!r}: its url must begin with {' or '.join(LINK_SCHEMES)}"
            )
    return text


async def _forget_priorities(connection: AsyncConnection, queue_id: int) -> None:
    """From now on the order of the pushes counts alone, also for what waits already."""
    await connection.execute(
        update(queue_items)
        .where(
            queue_items.c.queue_id == queue_id,
            open_item,
            queue_items.c.priority != DEFAULT_PRIORITY,
        )
        .values(priority=DEFAULT_PRIORITY)
    )


def _number(queue_id: str) -> int:
    try:
        return decode_number(queue_id, QUEUE)
    except ApiError:
        return 0  # no row has it


async def _one(connection: AsyncConnection, statement: Select[*tuple[Any, ...]]) -> QueueRow | None:
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _queue(row)


def _queue(row: Any) -> QueueRow:
    own, of_config = row[: -len(CONFIG_COLUMNS)], row[-len(CONFIG_COLUMNS) :]
    return QueueRow(None if of_config[0] is None else ConfigRow(*of_config), *own)
