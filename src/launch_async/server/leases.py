"""Who holds an item: pop, ack and what a lapsed lease means.

A lapse is never written down. A LEASED row past its expiry counts as PENDING to readers and to the
next pop, while its first holder may still ack it as long as nobody else took it.
"""

from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import BindParameter, ColumnElement, Update, and_, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import LEASE, ItemEvent, ItemState, move
from launch_async.server.store.tables import UtcDateTime
from launch_async.server.store.tables.queues import launch_agents, open_item, queue_items

ITEM: Final = "RunQueueItem"


class PoppedItem(msgspec.Struct, frozen=True):
    """An item that was just leased; the spec is JSON text."""

    id: int
    run_spec: str


async def pop(
    connection: AsyncConnection, *, queue_id: int, agent_id: int | None, now: datetime
) -> PoppedItem | None:
    """Lease the first item of a queue for a short time; None when there is none.

    One statement, whose cost does not grow with the queue: it walks the index of open items from
    the front, past those that are leased at the moment. PostgreSQL skips rows that another pop has
    locked; SQLite knows no row locks and needs none, as its one writer holds the database
    (BEGIN IMMEDIATE) and omits that clause.
    """
    leased = await connection.execute(
        POP, {"queue": queue_id, "agent": agent_id, "moment": now, "expiry": now + LEASE}
    )
    row = leased.one_or_none()
    if agent_id is not None:
        await connection.execute(
            update(launch_agents).where(launch_agents.c.id == agent_id).values(heartbeat_at=now)
        )
    return None if row is None else PoppedItem(*row)


async def ack(
    connection: AsyncConnection,
    *,
    item_id: int,
    run_name: str,
    agent_id: int | None,
    now: datetime,
) -> bool:
    """Claim a leased item for a run; True again for the same run, False for everybody else.

    W&B's own agent does not say who it is (agent_id None): then the first ack wins.
    """
    claimed = await connection.execute(
        update(queue_items)
        .where(
            queue_items.c.id == item_id,
            queue_items.c.state == ItemState.LEASED,
            held_by(agent_id),
        )
        .values(
            state=move(ItemState.LEASED, ItemEvent.ACK),
            run_name=run_name,
            claimed_at=now,
            lease_expires_at=None,
        )
    )
    if claimed.rowcount == 1:
        return True
    again = await connection.execute(
        select(queue_items.c.id).where(
            queue_items.c.id == item_id,
            queue_items.c.state.in_([ItemState.CLAIMED, ItemState.RUNNING]),
            queue_items.c.run_name == run_name,
            held_by(agent_id),
        )
    )
    return again.one_or_none() is not None


def is_waiting(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Return the condition of an item that a pop may take."""
    return or_(
        queue_items.c.state == ItemState.PENDING,
        and_(queue_items.c.state == ItemState.LEASED, queue_items.c.lease_expires_at <= now),
    )


def held_by(agent_id: int | None) -> ColumnElement[Any]:
    """Return the condition that this agent holds the item; anybody does who gives no name."""
    return queue_items.c.id.is_not(None) if agent_id is None else queue_items.c.agent_id == agent_id


def state_now(state: str, lease_expires_at: datetime | None, now: datetime) -> ItemState:
    """Return the state as it is to readers: a lapsed lease is none."""
    stored = ItemState(state)
    lapsed = lease_expires_at is not None and lease_expires_at <= now
    if stored is ItemState.LEASED and lapsed:
        return move(stored, ItemEvent.LAPSE) or stored
    return stored


def _pop() -> Update:
    first = (
        select(queue_items.c.id)
        .where(
            queue_items.c.queue_id == bindparam("queue"),
            open_item,
            is_waiting(bindparam("moment", type_=UtcDateTime)),
        )
        .order_by(queue_items.c.priority, queue_items.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        update(queue_items)
        .where(queue_items.c.id == first)
        .values(
            state=move(ItemState.PENDING, ItemEvent.POP),
            agent_id=bindparam("agent"),
            leased_at=bindparam("moment", type_=UtcDateTime),
            lease_expires_at=bindparam("expiry"),
        )
        .returning(queue_items.c.id, queue_items.c.run_spec)
    )


POP: Final = _pop()
"""Built once: it is the statement that runs most often, and building takes as long as running."""
