"""Items as they are read, and where they stand in their queue."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Select, and_, bindparam, func, not_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import CLAIMED_STATES, HELD, SILENCE, ItemState
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number
from launch_async.server.leases import ITEM, is_waiting, state_now
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import entities, users
from launch_async.server.store.tables.queues import (
    launch_agents,
    open_item,
    queue_item_warnings,
    queue_items,
    run_queues,
)
from launch_async.server.store.tables.runs import projects


class ItemRow(msgspec.Struct, frozen=True):
    """An item with the names that lead to it."""

    id: int
    queue_id: int
    queue_name: str
    queue_entity: str
    state: str
    ended_by: str | None
    priority: int
    run_spec: str
    own_resource_args: str | None
    requeued_from: int | None
    stop_requested: bool
    author: str | None
    agent_id: int | None
    agent_name: str | None
    agent_heartbeat_at: datetime | None
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

    def agent_lost(self, now: datetime) -> bool:
        """Tell whether the agent that claimed it has not been heard for long.

        It may return: with its identity, what it claimed is its own again.
        """
        heard = self.agent_heartbeat_at
        return self.state in CLAIMED_STATES and heard is not None and heard < now - SILENCE


class WarningRow(msgspec.Struct, frozen=True):
    """Something that an agent wanted people to know about an item."""

    item_id: int
    message: str
    stage: str
    file_paths: str
    created_at: datetime


PLACE: Final = (queue_items.c.priority, queue_items.c.id)
"""What pops go by. Without priorities all items have the same one: then it is the push's order."""

ITEM_SELECT = (
    select(
        queue_items.c.id,
        queue_items.c.queue_id,
        run_queues.c.name.label("queue_name"),
        entities.c.name.label("queue_entity"),
        queue_items.c.state,
        queue_items.c.ended_by,
        queue_items.c.priority,
        queue_items.c.run_spec,
        queue_items.c.own_resource_args,
        queue_items.c.requeued_from,
        queue_items.c.stop_requested,
        users.c.username.label("author"),
        queue_items.c.agent_id,
        launch_agents.c.name.label("agent_name"),
        launch_agents.c.heartbeat_at.label("agent_heartbeat_at"),
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

ITEM_BY_ID: Final = often(ITEM_SELECT.where(queue_items.c.id == bindparam("number")), alone=True)


async def find_item(
    connection: AsyncConnection, request: Request, item_id: str, *, queue_id: int | None = None
) -> ItemRow | None:
    """Return an item by its opaque id, or None when it is missing or not the viewer's to see."""
    try:
        number = decode_number(item_id, ITEM)
    except ApiError:
        return None
    row = (await connection.execute(ITEM_BY_ID, {"number": number})).one_or_none()
    item = None if row is None else _item(row)
    if item is None or item.queue_entity not in request.viewer.entities:
        return None
    return item if queue_id is None or item.queue_id == queue_id else None


async def load_item(connection: AsyncConnection, number: int) -> ItemRow | None:
    """Return an item by its row id. The caller checks that the viewer may see it."""
    found = await _rows(connection, ITEM_SELECT.where(queue_items.c.id == number))
    return found[0] if found else None


async def list_items(
    connection: AsyncConnection,
    queue_id: int,
    *,
    before_id: int | None,
    limit: int,
    states: Collection[ItemState] | None,
    now: datetime,
) -> list[ItemRow]:
    """Return a queue's items, the newest first, from the first older than `before_id`."""
    statement = ITEM_SELECT.where(queue_items.c.queue_id == queue_id)
    if before_id is not None:
        statement = statement.where(queue_items.c.id < before_id)
    if states is not None:
        statement = statement.where(_in_states(states, now))
    return await _rows(connection, statement.order_by(queue_items.c.id.desc()).limit(limit))


async def list_waiting(
    connection: AsyncConnection,
    queue_id: int,
    *,
    after: tuple[int, int] | None,
    limit: int,
    now: datetime,
) -> list[ItemRow]:
    """Return what waits in a queue, the next one first, from the first past (priority, id)."""
    statement = ITEM_SELECT.where(queue_items.c.queue_id == queue_id, open_item, is_waiting(now))
    if after is not None:
        statement = statement.where(tuple_(*PLACE) > tuple_(*after))
    return await _rows(connection, statement.order_by(*PLACE).limit(limit))


async def items_of_agent(
    connection: AsyncConnection, agent_id: int, entity_name: str, *, limit: int, now: datetime
) -> list[ItemRow]:
    """Return what an agent holds, the oldest first. It polls queues of its own entity only."""
    statement = ITEM_SELECT.where(
        entities.c.name == entity_name,
        queue_items.c.state.in_(HELD),
        ~is_waiting(now),
        queue_items.c.agent_id == agent_id,
    )
    return await _rows(connection, statement.order_by(queue_items.c.id).limit(limit))


async def places(
    connection: AsyncConnection, queue_id: int, item_ids: Sequence[int], *, now: datetime
) -> dict[int, int]:
    """Return the places of those items that wait, counted from 1, the next one to be popped.

    The items are a page, that is, of each priority they are consecutive ones: what is ahead is
    counted once for all of them.
    """
    mine = await connection.execute(
        select(*PLACE).where(queue_items.c.id.in_(item_ids), is_waiting(now))
    )
    shown: dict[int, list[int]] = {}
    for priority, item_id in sorted(tuple(row) for row in mine):
        shown.setdefault(priority, []).append(item_id)
    found: dict[int, int] = {}
    passed, start = 0, (-1, -1)
    for priority, ids in sorted(shown.items()):
        end = (priority, ids[0])
        between = (tuple_(*PLACE) >= tuple_(*start), tuple_(*PLACE) < tuple_(*end))
        for which in _waiting_apart(now):
            ahead = await connection.scalar(
                select(func.count()).where(queue_items.c.queue_id == queue_id, which, *between)
            )
            passed += ahead or 0
        found |= {item_id: place for place, item_id in enumerate(ids, start=passed + 1)}
        start = end
    return found


async def count_items(
    connection: AsyncConnection, queue_id: int, *, now: datetime
) -> dict[str, int]:
    """Return how many items of a queue stand in each state; states without one are 0."""
    rows = await connection.execute(
        select(queue_items.c.state, func.count())
        .where(queue_items.c.queue_id == queue_id)
        .group_by(queue_items.c.state)
    )
    counts = dict.fromkeys((state.value for state in ItemState), 0)
    for state, count in rows:
        counts[state] = count
    _, lapsed = _waiting_apart(now)
    back = await connection.scalar(
        select(func.count()).where(queue_items.c.queue_id == queue_id, lapsed)
    )
    counts[ItemState.LEASED.value] -= back or 0
    counts[ItemState.PENDING.value] += back or 0
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


def _waiting_apart(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return `is_waiting` in halves: an index alone can count the first, the second is small."""
    lapsed = and_(queue_items.c.state == ItemState.LEASED, queue_items.c.lease_expires_at <= now)
    return queue_items.c.state == ItemState.PENDING, lapsed


def _in_states(states: Collection[ItemState], now: datetime) -> ColumnElement[bool]:
    waiting = is_waiting(now)
    named = and_(queue_items.c.state.in_(states), not_(waiting))
    return or_(waiting, named) if ItemState.PENDING in states else named


async def _rows(connection: AsyncConnection, statement: Select[*tuple[Any, ...]]) -> list[ItemRow]:
    return [_item(row) for row in await connection.execute(statement)]


def _item(row: Any) -> ItemRow:
    return ItemRow(*row)
