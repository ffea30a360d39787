"""What people take back: an item that waits ends at once, one that an agent has is asked to stop.

PENDING, LEASED   -> STOPPED
CLAIMED, RUNNING  -> its run is asked to stop; the item ends when the run or the agent says so
CLAIMED, but its agent is lost and its run never spoke -> STOPPED: nobody is left to say so
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import (
    CLAIMED_STATES,
    ENDED,
    SILENCE,
    EndedBy,
    ItemEvent,
    ItemState,
    move,
)
from launch_async.server.claims import give_up_run, lock_run
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.items import ItemRow, load_item
from launch_async.server.projects import ensure_project
from launch_async.server.queueing import ask_item_to_stop, ask_run_to_stop
from launch_async.server.runs import insert_run
from launch_async.server.store import Store
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.queues import (
    launch_agents,
    open_item,
    queue_items,
    run_queues,
)

BATCH_ITEMS: Final = 1_000


class Cancelled(msgspec.Struct, frozen=True):
    """What became of an item that somebody cancelled."""

    success: bool
    """Whether the item is stopped or was asked to stop."""
    state: ItemState


async def cancel_item(connection: AsyncConnection, request: Request, item: ItemRow) -> Cancelled:
    """Cancel one item; twice does no harm, and what ended in another way stays as it is."""
    now = request.now()
    if await _stop_waiting(connection, queue_items.c.id == item.id, now=now):
        return Cancelled(success=True, state=ItemState.STOPPED)
    current = await load_item(connection, item.id)
    if current is None:
        raise ApiError("this item is gone", status=404)
    state = ItemState(current.state)
    if state in ENDED or current.run_name is None:
        return Cancelled(success=state is ItemState.STOPPED, state=state)
    return await _cancel_claimed(connection, request, current, current.run_name)


async def cancel_queue(request: Request, queue_id: int, *, include_running: bool) -> int:
    """Cancel all items that are in a queue now; return how many were stopped or asked to stop.

    In many short transactions: agents go on popping, and writing, meanwhile.
    """
    async with request.store.read() as connection:
        newest = await connection.scalar(
            select(func.max(queue_items.c.id)).where(queue_items.c.queue_id == queue_id)
        )
    up_to = newest or 0
    cancelled = count = await _cancel_batch(request, queue_id, up_to)
    while count == BATCH_ITEMS:
        count = await _cancel_batch(request, queue_id, up_to)
        cancelled += count
    if not include_running:
        return cancelled
    async with request.store.read() as connection:
        claimed = await connection.execute(
            select(queue_items.c.id)
            .where(
                queue_items.c.queue_id == queue_id,
                queue_items.c.state.in_(CLAIMED_STATES),
                queue_items.c.id <= up_to,
                ~queue_items.c.stop_requested,
            )
            .order_by(queue_items.c.id)
        )
        item_ids = list(claimed.scalars())
    for item_id in item_ids:
        async with request.store.write() as connection:
            item = await load_item(connection, item_id)
            if item is not None:
                cancelled += (await cancel_item(connection, request, item)).success
    return cancelled


async def end_abandoned(store: Store, *, now: datetime) -> int:
    """End claimed items that were cancelled and whose agent was lost since; return how many."""
    abandoned = (
        select(queue_items.c.id)
        .join(run_queues, run_queues.c.id == queue_items.c.queue_id)  # for the index's sake
        .join(launch_agents, launch_agents.c.id == queue_items.c.agent_id)
        .where(
            queue_items.c.state == ItemState.CLAIMED,
            queue_items.c.stop_requested,
            launch_agents.c.heartbeat_at < now - SILENCE,
        )
        .order_by(queue_items.c.id)
        .limit(BATCH_ITEMS)
    )
    async with store.read() as connection:
        item_ids = list((await connection.execute(abandoned)).scalars())
    for item_id in item_ids:
        async with store.write() as connection:
            item = await load_item(connection, item_id)
            if item is not None and item.run_name is not None:
                await lock_run(connection, item, item.run_name)
                await _end(connection, item, ItemEvent.CANCEL_LOST, now=now)
    return len(item_ids)


async def empty_queues(store: Store, queue_ids: Collection[int]) -> None:
    """Delete all that is in queues which will be deleted.

    In many short transactions: at once, the items of years would take longer than a statement may
    last, and keep others from writing.
    """
    first = (
        select(queue_items.c.id)
        .where(queue_items.c.queue_id.in_(queue_ids))
        .order_by(queue_items.c.id)
        .limit(BATCH_ITEMS)
    )
    count = BATCH_ITEMS
    while count == BATCH_ITEMS:
        async with store.write() as connection:
            gone = await connection.execute(delete(queue_items).where(queue_items.c.id.in_(first)))
            count = gone.rowcount


async def delete_item(connection: AsyncConnection, item_id: int, *, queue_id: int) -> bool:
    """Delete an item of this queue; an agent that has leased it cannot ack it any more.

    Raises a 409 for one that an agent has claimed: its run would go on unseen.
    """
    its_row = (queue_items.c.id == item_id, queue_items.c.queue_id == queue_id)
    gone = await connection.execute(
        delete(queue_items).where(*its_row, queue_items.c.state.not_in(CLAIMED_STATES))
    )
    if gone.rowcount == 1:
        return True
    state = await connection.scalar(select(queue_items.c.state).where(*its_row))
    if state is None:
        return False
    raise ApiError(
        f"this item is {state}, and its run would go on unseen; "
        "cancel it first with cancelRunQueueItem, or stop its run",
        status=409,
    )


async def _cancel_claimed(
    connection: AsyncConnection, request: Request, item: ItemRow, run_name: str
) -> Cancelled:
    now = request.now()
    run_id = await _make_run(connection, request, item, run_name)
    item = await load_item(connection, item.id) or item  # until the run was locked, it could move
    state = ItemState(item.state)
    claimed = state is ItemState.CLAIMED
    if state in ENDED:
        await give_up_run(connection, item, now=now)  # its agent spoke first
    elif run_id is None or (claimed and item.agent_lost(now)):
        event = ItemEvent.CANCEL_LOST if claimed else ItemEvent.RUN_STOPPED
        await _end(connection, item, event, now=now)
    elif await ask_item_to_stop(connection, item.id):
        await ask_run_to_stop(connection, run_id, stop=True)
        return Cancelled(success=True, state=state)
    after = await load_item(connection, item.id)
    ended = ItemState.STOPPED if after is None else ItemState(after.state)
    return Cancelled(success=ended is ItemState.STOPPED, state=ended)


async def _make_run(
    connection: AsyncConnection, request: Request, item: ItemRow, run_name: str
) -> int | None:
    """Return the item's run, made if it never spoke, so that its agent and its process hear of a
    stop; None when the run's entity is gone."""
    entity_id = await connection.scalar(
        select(entities.c.id).where(entities.c.name == item.run_entity)
    )
    if entity_id is None:
        return None
    place = await ensure_project(
        connection,
        entity_id,
        msgspec.json.decode(item.run_spec)["project"],
        user_id=request.viewer.user_id,
    )
    run_id = await insert_run(connection, request, place, run_name, {})
    await lock_run(connection, item, run_name)
    return run_id


async def _end(
    connection: AsyncConnection, item: ItemRow, event: ItemEvent, *, now: datetime
) -> None:
    """End a claimed item for good; should its run speak after all, it is told to stop."""
    before = ItemState(item.state)
    ended = await connection.execute(
        update(queue_items)
        .where(queue_items.c.id == item.id, queue_items.c.state == before)
        .values(state=move(before, event), ended_by=EndedBy.USER, ended_at=now, stop_requested=True)
    )
    if ended.rowcount == 1:
        await give_up_run(connection, item, now=now)


async def _cancel_batch(request: Request, queue_id: int, up_to: int) -> int:
    async with request.store.write() as connection:
        batch = (
            select(queue_items.c.id)
            .where(queue_items.c.queue_id == queue_id, open_item, queue_items.c.id <= up_to)
            .order_by(queue_items.c.priority, queue_items.c.id)
            .limit(BATCH_ITEMS)
            .with_for_update()
        )
        return await _stop_waiting(connection, queue_items.c.id.in_(batch), now=request.now())


async def _stop_waiting(
    connection: AsyncConnection, which: ColumnElement[bool], *, now: datetime
) -> int:
    """End those of these items that no agent has claimed; return how many."""
    stopped = await connection.execute(
        update(queue_items)
        .where(which, queue_items.c.state.in_([ItemState.PENDING, ItemState.LEASED]))
        .values(
            state=move(ItemState.PENDING, ItemEvent.CANCEL),
            ended_by=EndedBy.USER,
            ended_at=now,
            lease_expires_at=None,
        )
    )
    return stopped.rowcount
