"""Who holds an item: pop, ack and what a lapsed lease means.

A lapse is never written down. A LEASED row past its expiry counts as PENDING to readers and to the
next pop, and as nobody's: its first holder can neither ack nor fail it any more.
"""

import secrets
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    String,
    Update,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import CLAIMED_STATES, HELD, LEASE, ItemEvent, ItemState, move
from launch_async.server.store.tables import UtcDateTime
from launch_async.server.store.tables.queues import (
    launch_agents,
    open_item,
    queue_items,
    run_queues,
)

ITEM: Final = "RunQueueItem"
TOKEN_BYTES: Final = 16


class PoppedItem(msgspec.Struct, frozen=True):
    """An item that was just leased; the spec is JSON text."""

    id: int
    run_spec: str
    lease: str
    user_id: int | None
    """Who pushed it."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks of an item: by its lease's token, else (W&B's agents have none) by their user."""

    user_id: int
    lease: str | None


async def pop(
    connection: AsyncConnection, *, queue_id: int, agent_id: int | None, now: datetime
) -> PoppedItem | None:
    """Lease the first item of a queue for a short time; None when there is none.

    One statement, whose cost does not grow with the queue: it walks the index of open items from
    the front, past those that are leased at the moment. PostgreSQL skips rows that another pop has
    locked; SQLite knows no row locks and needs none, as its one writer holds the database
    (BEGIN IMMEDIATE) and omits that clause.
    """
    lease = secrets.token_hex(TOKEN_BYTES)
    leased = await connection.execute(
        POP,
        {
            "queue": queue_id,
            "agent": agent_id,
            "moment": now,
            "expiry": now + LEASE,
            "token": lease,
        },
    )
    row = leased.one_or_none()
    return None if row is None else PoppedItem(row.id, row.run_spec, lease, row.created_by)


async def has_room(connection: AsyncConnection, queue_id: int, *, now: datetime) -> bool:
    """Tell whether a queue's limit lets one more item be held; no other pop can tell until we end.

    The limit counts what agents hold. Runs that are resumed count too, but nothing keeps them from
    exceeding it.
    """
    limit = await connection.scalar(
        select(run_queues.c.concurrency_limit).where(run_queues.c.id == queue_id).with_for_update()
    )
    if limit is None:
        return True
    held = (
        select(queue_items.c.id)
        .where(queue_items.c.queue_id == queue_id, queue_items.c.state.in_(HELD), ~is_waiting(now))
        .limit(limit)
        .subquery()
    )
    count = await connection.scalar(select(func.count()).select_from(held))
    return (count or 0) < int(limit)


async def ack(
    connection: AsyncConnection, *, item_id: int, run_name: str, holder: Holder, now: datetime
) -> bool:
    """Claim a leased item for a run; True again for the same run, False for everybody else."""
    said = {
        "item": item_id,
        "run": run_name,
        "moment": now,
        "token": holder.lease,
        "user": holder.user_id,
    }
    claimed = await connection.execute(ACK, said)
    if claimed.rowcount == 1:
        return True
    again = await connection.execute(
        select(queue_items.c.id).where(
            queue_items.c.id == item_id,
            queue_items.c.state.in_(CLAIMED_STATES),
            queue_items.c.run_name == run_name,
            held_by(holder),
        )
    )
    return again.one_or_none() is not None


def is_waiting(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Return the condition of an item that a pop may take."""
    return or_(
        queue_items.c.state == ItemState.PENDING,
        and_(queue_items.c.state == ItemState.LEASED, queue_items.c.lease_expires_at <= now),
    )


def held_by(holder: Holder) -> ColumnElement[bool]:
    """Return the condition that this is who popped the item, as far as can be told.

    Without a token, two agents of one user are the same (docs/adr/0007).
    """
    if holder.lease is not None:
        return queue_items.c.lease == holder.lease
    return popped_by(holder.user_id)


def popped_by(user_id: int | BindParameter[int]) -> ColumnElement[bool]:
    """Return the condition that no agent of somebody else popped the item."""
    return ~exists().where(
        launch_agents.c.id == queue_items.c.agent_id,
        launch_agents.c.created_by != user_id,
    )


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
            lease=bindparam("token"),
        )
        .returning(queue_items.c.id, queue_items.c.run_spec, queue_items.c.created_by)
    )


POP: Final = _pop()
"""Built once, as all that a claim takes: building a statement costs more than running it."""

ACK: Final = (
    update(queue_items)
    .where(
        queue_items.c.id == bindparam("item"),
        queue_items.c.state == ItemState.LEASED,
        queue_items.c.lease_expires_at > bindparam("moment", type_=UtcDateTime),
        or_(
            queue_items.c.lease == bindparam("token", type_=String),
            and_(bindparam("token", type_=String).is_(None), popped_by(bindparam("user"))),
        ),
    )
    .values(
        state=move(ItemState.LEASED, ItemEvent.ACK),
        run_name=bindparam("run"),
        claimed_at=bindparam("moment", type_=UtcDateTime),
        lease_expires_at=None,
    )
)
