"""How items come into a queue, and how they follow their runs."""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import ENDED, EndedBy, ItemEvent, ItemState, move, run_event
from launch_async.server.access import Role
from launch_async.server.context import Request
from launch_async.server.projects import resolve_entity
from launch_async.server.queues import QueueRow, queue_defaults
from launch_async.server.run_specs import check_priority, complete, read_object
from launch_async.server.store.engine import insert
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
    defaults = await queue_defaults(connection, queue)
    spec = complete(
        read_object(run_spec, "the run spec"),
        defaults,
        author=request.viewer.username,
        template_values=read_object(template_values or "{}", "templateVariableValues"),
    )
    checked_priority = check_priority(priority, defaults)
    target = await resolve_entity(connection, request, spec["entity"], need=Role.MEMBER)
    made = await connection.execute(
        insert(connection, queue_items)
        .values(
            queue_id=queue.id,
            state=ItemState.PENDING,
            priority=checked_priority,
            run_spec=msgspec.json.encode(spec).decode(),
            created_by=request.viewer.user_id,
            created_at=request.now(),
            run_entity=target.name,
            run_project_folded=spec["project"].casefold(),
            file_paths="[]",
        )
        .returning(queue_items.c.id)
    )
    return PushedItem(int(made.scalar_one()), spec)


async def run_changed(
    connection: AsyncConnection,
    *,
    entity: str,
    project: str,
    run_name: str,
    state: str,
    exit_code: int | None,
    now: datetime,
) -> None:
    """Let the item behind a run follow the run's new state.

    A run that was started more than once (requeued after a preemption) belongs to its newest item.
    """
    del exit_code  # the run's state and whether a stop was asked for say all that an item knows
    item = await item_of_run(connection, entity=entity, project=project, run_name=run_name)
    if item is None:
        return
    stopped = await _stop_requested(connection, entity=entity, project=project, run_name=run_name)
    event = run_event(state, stop_requested=stopped)
    if event is not None:
        await follow_run(connection, item, event, now=now)


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
    await connection.execute(
        update(queue_items)
        .where(queue_items.c.id == item.id, queue_items.c.state == before)
        .values(
            state=after,
            ended_by=EndedBy.RUN if over else None,
            started_at=item.started_at or now,
            ended_at=now if over else None,
        )
    )


async def item_of_run(
    connection: AsyncConnection, *, entity: str, project: str, run_name: str
) -> ClaimedItem | None:
    """Return the newest item that was claimed for this run."""
    rows = await connection.execute(
        select(
            queue_items.c.id,
            queue_items.c.state,
            queue_items.c.ended_by,
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


async def _stop_requested(
    connection: AsyncConnection, *, entity: str, project: str, run_name: str
) -> bool:
    rows = await connection.execute(
        select(runs.c.stop_requested)
        .join(projects, projects.c.id == runs.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(
            runs.c.name == run_name,
            projects.c.name_folded == project.casefold(),
            entities.c.name == entity,
        )
    )
    return bool(rows.scalar_one_or_none())
