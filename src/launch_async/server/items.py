"""Items as they are read."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, func, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import ItemState
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number
from launch_async.server.leases import ITEM, is_waiting, state_now
from launch_async.server.store.tables.people import entities, users
from launch_async.server.store.tables.queues import (
    launch_agents,
    queue_item_warnings,
    queue_items,
    run_queues,
)
from launch_async.server.store.tables.runs import projects


class ItemRow(msgspec.Struct, frozen=True):
    """An item with the names that lead to it."""

    id: int
    queue_id: int
    queue_entity: str
    state: str
    ended_by: str | None
    priority: int
    run_spec: str
    author: str | None
    agent_id: int | None
    agent_name: str | None
    created_at: datetime
    leased_at: datetime | None
    lease_expires_at: datetime | None
    claimed_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    run_name: str | None
    run_entity: str
    run_project: str
    message: str | None
    stage: str | None
    file_paths: str

    def standing(self, now: datetime) -> ItemState:
        """Return the state as it is to readers: a lapsed lease is none."""
        return state_now(self.state, self.lease_expires_at, now)


class WarningRow(msgspec.Struct, frozen=True):
    """Something that an agent wanted people to know about an item."""

    item_id: int
    message: str
    stage: str
    file_paths: str
    created_at: datetime


ITEM_SELECT = (
    select(
        queue_items.c.id,
        queue_items.c.queue_id,
        entities.c.name.label("queue_entity"),
        queue_items.c.state,
        queue_items.c.ended_by,
        queue_items.c.priority,
        queue_items.c.run_spec,
        users.c.username.label("author"),
        queue_items.c.agent_id,
        launch_agents.c.name.label("agent_name"),
        queue_items.c.created_at,
        queue_items.c.leased_at,
        queue_items.c.lease_expires_at,
        queue_items.c.claimed_at,
        queue_items.c.started_at,
        queue_items.c.ended_at,
        queue_items.c.run_name,
        queue_items.c.run_entity,
        queue_items.c.run_project_folded.label("run_project"),
        queue_items.c.message,
        queue_items.c.stage,
        queue_items.c.file_paths,
    )
    .join(run_queues, run_queues.c.id == queue_items.c.queue_id)
    .join(projects, projects.c.id == run_queues.c.project_id)
    .join(entities, entities.c.id == projects.c.entity_id)
    .outerjoin(users, users.c.id == queue_items.c.created_by)
    .outerjoin(launch_agents, launch_agents.c.id == queue_items.c.agent_id)
)


async def find_item(
    connection: AsyncConnection, request: Request, item_id: str, *, queue_id: int | None = None
) -> ItemRow | None:
    """Return an item by its opaque id, or None when it is missing or not the viewer's to see."""
    try:
        number = decode_number(item_id, ITEM)
    except ApiError:
        return None
    statement = ITEM_SELECT.where(queue_items.c.id == number)
    if queue_id is not None:
        statement = statement.where(queue_items.c.queue_id == queue_id)
    found = await _rows(connection, statement)
    return found[0] if found and found[0].queue_entity in request.viewer.entities else None


async def list_items(
    connection: AsyncConnection,
    queue_id: int,
    *,
    before_id: int | None,
    limit: int,
    states: Sequence[str] | None,
    now: datetime,
) -> list[ItemRow]:
    """Return a queue's items, the newest first, from the first older than `before_id`."""
    statement = ITEM_SELECT.where(queue_items.c.queue_id == queue_id)
    if before_id is not None:
        statement = statement.where(queue_items.c.id < before_id)
    if states is not None:
        statement = statement.where(_in_states(states, now))
    return await _rows(connection, statement.order_by(queue_items.c.id.desc()).limit(limit))


async def count_items(
    connection: AsyncConnection, queue_id: int, *, now: datetime
) -> dict[str, int]:
    """Return how many items of a queue stand in each state; states without one are 0."""
    waiting = is_waiting(now).label("waiting")
    rows = await connection.execute(
        select(queue_items.c.state, waiting, func.count())
        .where(queue_items.c.queue_id == queue_id)
        .group_by(queue_items.c.state, waiting)
    )
    counts = dict.fromkeys((state.value for state in ItemState), 0)
    for state, is_free, count in rows:
        counts[ItemState.PENDING.value if is_free else state] += count
    return counts


async def warnings_of(
    connection: AsyncConnection, item_ids: Sequence[int]
) -> dict[int, list[WarningRow]]:
    """Return the warnings of these items, the oldest first."""
    rows = await connection.execute(
        select(
            queue_item_warnings.c.item_id,
            queue_item_warnings.c.message,
            queue_item_warnings.c.stage,
            queue_item_warnings.c.file_paths,
            queue_item_warnings.c.created_at,
        )
        .where(queue_item_warnings.c.item_id.in_(item_ids))
        .order_by(queue_item_warnings.c.id)
    )
    found: dict[int, list[WarningRow]] = {item_id: [] for item_id in item_ids}
    for row in rows:
        found[row.item_id].append(WarningRow(*row))
    return found


def _in_states(states: Sequence[str], now: datetime) -> ColumnElement[bool]:
    waiting = is_waiting(now)
    named = and_(queue_items.c.state.in_(states), not_(waiting))
    return or_(waiting, named) if ItemState.PENDING in states else named


async def _rows(connection: AsyncConnection, statement: Select[*tuple[Any, ...]]) -> list[ItemRow]:
    return [ItemRow(*row) for row in await connection.execute(statement)]
