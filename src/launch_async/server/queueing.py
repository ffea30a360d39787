"""How items come into a queue, once and again, and how they follow their runs."""

from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import (
    CLAIMED_STATES,
    ENDED,
    EndedBy,
    ItemEvent,
    ItemState,
    move,
    run_event,
)
from launch_async.server.access import Role
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.items import ItemRow
from launch_async.server.projects import check_name, resolve_entity
from launch_async.server.queues import QueueRow, queue_defaults, takes_priorities
from launch_async.server.run_specs import (
    DEFAULT_PRIORITY,
    RUN_ID,
    again,
    check_priority,
    complete,
    read_object,
)
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.queues import queue_items
from launch_async.server.store.tables.runs import projects, runs


class PushedItem(msgspec.Struct, frozen=True):
    """A new item and its spec as an agent will get it."""

    id: int
    spec: dict[str, Any]


class ClaimedItem(msgspec.Struct, frozen=True):
    """As much of an item as its run may change."""

    id: int
    state: str
    ended_by: str | None
    stop_requested: bool
    started_at: datetime | None


async def push(
    connection: AsyncConnection,
    request: Request,
    queue: QueueRow,
    *,
    run_spec: str,
    template_values: str | None,
    priority: int | None,
) -> PushedItem:
    """Check a run spec, complete it from its queue and put it at the end.

    Raises an ApiError that says what is wrong with the spec, a template value or the priority.
    """
    defaults = queue_defaults(queue)
    completed = complete(
        read_object(run_spec, "the run spec"),
        defaults,
        author=request.viewer.username,
        template_values=read_object(template_values or "{}", "templateVariableValues"),
        resource_types=request.settings.resource_types,
    )
    spec = completed.spec
    check_name("project", spec["project"])
    wanted = check_priority(priority)
    if wanted != DEFAULT_PRIORITY and not await takes_priorities(connection, queue.id):
        raise ApiError(
            f"queue {queue.name!r} takes no priorities; "
            'leave the priority out, or set the queue\'s prioritization mode to "V0"'
        )
    entity = spec["entity"]
    if entity != queue.entity_name:  # else it was seen with its queue
        await resolve_entity(connection, request, entity, need=Role.MEMBER)
    number = await _add(
        connection,
        request,
        {
            "queue_id": queue.id,
            "priority": wanted,
            "run_spec": msgspec.json.encode(spec).decode(),
            "own_resource_args": msgspec.json.encode(completed.own_resource_args).decode(),
            "run_entity": entity,
            "run_project_folded": spec["project"].casefold(),
        },
    )
    return PushedItem(number, spec)


async def requeue(
    connection: AsyncConnection,
    request: Request,
    item: ItemRow,
    *,
    keep_run: bool,
    resume_count: int | None = None,
) -> int:
    """Put a new item with an ended one's spec at the end of its priority; return its row id.

    It becomes a new run, unless `keep_run`: then it resumes the run of the old one. As long as it
    has not ended, a repeat finds it instead of making another. What the queue's config became
    since the push does not count. Raises a 409 for an item that has not ended.

    With `resume_count` its agent speaks, of a preempted run: only what failed is resumed, not what
    somebody stopped, and a repeat finds the new item even when that has ended.
    """
    state = await connection.scalar(
        select(queue_items.c.state).where(queue_items.c.id == item.id).with_for_update()
    )
    if state not in ENDED:
        raise ApiError(
            f"this item is {item.standing(request.now())}; "
            "cancel it with cancelRunQueueItem, or wait for its end, and requeue it then",
            status=409,
        )
    preempted = resume_count is not None
    if preempted and state != ItemState.FAILED:
        raise ApiError(f"this item is {state}; only one that failed is resumed", status=409)
    under_way = await connection.scalar(
        select(queue_items.c.id)
        .where(
            queue_items.c.requeued_from == item.id,
            true() if preempted else queue_items.c.state.not_in(ENDED),
        )
        .limit(1)
    )
    if under_way is not None:
        return int(under_way)
    await resolve_entity(connection, request, item.run_entity, need=Role.MEMBER)
    before = msgspec.json.decode(item.run_spec)
    run_id = item.run_name or before.get(RUN_ID)
    spec = again(
        before, run_id=run_id if keep_run or preempted else None, resume_count=resume_count
    )
    keeps_priority = item.priority == DEFAULT_PRIORITY or await takes_priorities(
        connection, item.queue_id
    )
    return await _add(
        connection,
        request,
        {
            "queue_id": item.queue_id,
            "priority": item.priority if keeps_priority else DEFAULT_PRIORITY,
            "run_spec": msgspec.json.encode(spec).decode(),
            "own_resource_args": item.own_resource_args,
            "requeued_from": item.id,
            "run_entity": item.run_entity,
            "run_project_folded": item.run_project,
        },
    )


async def run_changed(
    connection: AsyncConnection,
    *,
    entity: str,
    project: str,
    run_name: str,
    state: str,
    now: datetime,
) -> None:
    """Let the item behind a run follow the run's new state.

    A run that was started more than once (requeued after a preemption) belongs to its newest item.
    """
    item = await item_of_run(connection, entity=entity, project=project, run_name=run_name)
    if item is None:
        return
    run = await _run(connection, entity=entity, project=project, run_name=run_name)
    stopped = item.stop_requested or (run is not None and run.stop_requested)
    event = run_event(state, stop_requested=stopped)
    if event is None:
        return
    await follow_run(connection, item, event, now=now)
    resumed = item.state in ENDED and item.ended_by == EndedBy.RUN
    if run is not None and item.stop_requested and event is ItemEvent.RUN_RUNNING and not resumed:
        await ask_run_to_stop(connection, run.id, stop=True)  # it begins after its item's cancel


async def follow_run(
    connection: AsyncConnection, item: ClaimedItem, event: ItemEvent, *, now: datetime
) -> None:
    """Move one item by an event of its run."""
    before = ItemState(item.state)
    ended_by = None if item.ended_by is None else EndedBy(item.ended_by)
    after = move(before, event, ended_by=ended_by)
    if after is None or after is before:
        return
    over = after in ENDED
    values: dict[str, Any] = {
        "state": after,
        "ended_by": EndedBy.RUN if over else None,
        "started_at": item.started_at or now,
        "ended_at": now if over else None,
    }
    if before in ENDED and not over:
        values["stop_requested"] = False  # what is resumed is not what was asked to stop
    await connection.execute(
        update(queue_items)
        .where(queue_items.c.id == item.id, queue_items.c.state == before)
        .values(values)
    )


async def ask_item_to_stop(connection: AsyncConnection, item_id: int) -> bool:
    """Note that an item that an agent has claimed shall stop; False for any other."""
    asked = await connection.execute(
        update(queue_items)
        .where(queue_items.c.id == item_id, queue_items.c.state.in_(CLAIMED_STATES))
        .values(stop_requested=True)
    )
    return asked.rowcount == 1


async def ask_run_to_stop(connection: AsyncConnection, run_id: int, *, stop: bool) -> None:
    """Set what a run's process and its agent ask for: whether it shall stop."""
    await connection.execute(update(runs).where(runs.c.id == run_id).values(stop_requested=stop))


async def item_of_run(
    connection: AsyncConnection, *, entity: str, project: str, run_name: str
) -> ClaimedItem | None:
    """Return the newest item that was claimed for this run."""
    rows = await connection.execute(
        select(
            queue_items.c.id,
            queue_items.c.state,
            queue_items.c.ended_by,
            queue_items.c.stop_requested,
            queue_items.c.started_at,
        )
        .where(
            queue_items.c.run_name == run_name,
            queue_items.c.run_entity == entity,
            queue_items.c.run_project_folded == project.casefold(),
        )
        .order_by(queue_items.c.id.desc())
        .limit(1)
    )
    row = rows.one_or_none()
    return None if row is None else ClaimedItem(*row)


async def _add(connection: AsyncConnection, request: Request, values: dict[str, Any]) -> int:
    standing = {
        "state": ItemState.PENDING,
        "created_by": request.viewer.user_id,
        "created_at": request.now(),
        "file_paths": "[]",
    }
    return int((await connection.execute(ADD, values | standing)).scalar_one())


ADD: Final = often(insert(queue_items).returning(queue_items.c.id))


async def _run(
    connection: AsyncConnection, *, entity: str, project: str, run_name: str
) -> Row[int, bool] | None:
    rows = await connection.execute(
        select(runs.c.id, runs.c.stop_requested)
        .join(projects, projects.c.id == runs.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(
            runs.c.name == run_name,
            projects.c.name_folded == project.casefold(),
            entities.c.name == entity,
        )
    )
    return rows.one_or_none()
