"""Who holds an item: pop, ack and what a lapsed lease means.

A lapse is never written down. A LEASED row past its expiry counts as PENDING to readers and to the
next pop, and as nobody's: its first holder can neither ack nor fail it any more.
"""

import secrets
from datetime import datetime
from typing import Final, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Select,
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
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import CLAIMED_STATES, HELD, LEASE, ItemEvent, ItemState, move
from launch_async.server.store.prepared import often
from launch_async.server.store.tables import UtcDateTime
from launch_async.server.store.tables.queues import (
    launch_agents,
    open_item,
    queue_items,
    run_keys,
    run_queues,
)

ITEM: Final = "RunQueueItem"
TOKEN_BYTES: Final = 16

Renewed = TypeVar("Renewed", PostgresInsert, SqliteInsert)


class PoppedItem(msgspec.Struct, frozen=True):
    """An item that was just leased; the spec is JSON text."""

    id: int
    run_spec: str
    lease: str


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks of an item: by its lease's token, else (W&B's agents have none) by their user."""

    user_id: int
    lease: str | None


async def pop(
    connection: AsyncConnection,
    *,
    queue_id: int,
    agent_id: int | None,
    digest: str | None = None,
    now: datetime,
) -> PoppedItem | None:
    """Lease the first item of a queue for a short time; None when there is none.

    `digest`: of the key that its run shall have, unless whoever pushed it is gone: a key is
    somebody's. The one before it is dead.

    One statement, whose cost does not grow with the queue: it walks the index of open items from
    the front, past those that are leased at the moment. PostgreSQL skips rows that another pop has
    locked; SQLite knows no row locks and needs none, as its one writer holds the database
    (BEGIN IMMEDIATE) and omits that clause.
    """
    lease = secrets.token_hex(TOKEN_BYTES)
    asked = {
        "queue": queue_id,
        "agent": agent_id,
        "moment": now,
        "expiry": now + LEASE,
        "token": lease,
    }
    at_once = digest is not None and _postgres(connection)
    popped = await connection.execute(
        *((POP_AND_KEEP, asked | {"digest": digest}) if at_once else (POP, asked))
    )
    row = popped.one_or_none()
    if row is None:
        return None
    if digest is not None and not at_once and row.created_by is not None:
        key = {"item_id": row.id, "digest": digest, "user_id": row.created_by, "created_at": now}
        await connection.execute(KEEP, key)
    return PoppedItem(row.id, row.run_spec, lease)


async def has_room(connection: AsyncConnection, queue_id: int, *, now: datetime) -> bool:
    """Tell whether a queue's limit lets one more item be held; no other pop can tell until we end.

    The limit counts what agents hold. Runs that are resumed count too, but nothing keeps them from
    exceeding it.
    """
    limit = await connection.scalar(
        select(run_queues.c.concurrency_limit)
        .where(run_queues.c.id == queue_id)
        .with_for_update(key_share=True)  # pushes, which refer to it, go on
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
    connection: AsyncConnection,
    *,
    item_id: int,
    run_name: str,
    lock: int,
    holder: Holder,
    now: datetime,
) -> bool:
    """Claim a leased item for a run; True again for the same run, False for everybody else.

    On PostgreSQL the same statement waits for the lock of `hold_run`: whoever makes the run at this
    moment has either ended, and the run can be seen, or begins later and sees this claim.
    """
    said = {
        "item": item_id,
        "run": run_name,
        "moment": now,
        "token": holder.lease,
        "user": holder.user_id,
    }
    claimed = await connection.execute(
        *((ACK_AND_HOLD, said | {"lock": lock}) if _postgres(connection) else (ACK, said))
    )
    if claimed.first() is not None:
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


def _postgres(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "postgresql"


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


def _renew(statement: Renewed) -> Renewed:
    """Return an INSERT of a run's key that replaces the one which the item has."""
    replaced = (run_keys.c.digest, run_keys.c.user_id, run_keys.c.created_at)
    return statement.on_conflict_do_update(
        index_elements=[run_keys.c.item_id],
        set_={column.name: statement.excluded[column.name] for column in replaced},
    )


def _pop_and_keep() -> Select[int, str]:
    popped = _pop().cte("popped")
    key = select(
        popped.c.id,
        bindparam("digest", type_=String),
        popped.c.created_by,
        bindparam("moment", type_=UtcDateTime),
    ).where(popped.c.created_by.is_not(None))
    names = ["item_id", "digest", "user_id", "created_at"]
    kept = _renew(postgres_insert(run_keys).from_select(names, key)).cte("kept")
    return select(popped.c.id, popped.c.run_spec).add_cte(kept)


POP: Final = often(_pop(), alone=True)
"""Built once, as all that a claim takes: building a statement costs more than running it."""

KEEP: Final = often(_renew(sqlite_insert(run_keys)))
POP_AND_KEEP: Final = often(_pop_and_keep(), alone=True)
"""On PostgreSQL each statement is a trip; SQLite cannot write twice with one."""

CLAIM: Final = (
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
    .returning(queue_items.c.id)
)
CLAIMED: Final = CLAIM.cte("claimed")

ACK: Final = often(CLAIM, alone=True)
ACK_AND_HOLD: Final = often(
    select(
        CLAIMED.c.id, func.pg_advisory_xact_lock(bindparam("lock", type_=BigInteger))
    ).select_from(CLAIMED),
    alone=True,
)
