"""What agents say about items: claimed, failed, warned of; and what people take back."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import HELD, EndedBy, ItemEvent, ItemState, move, run_event
from launch_async.server import leases
from launch_async.server.items import ItemRow
from launch_async.server.queueing import follow_run, item_of_run
from launch_async.server.run_rows import TERMINAL_STATES
from launch_async.server.runs import set_run_state
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.queues import queue_item_warnings, queue_items
from launch_async.server.store.tables.runs import projects, runs

ACK_REFUSED: Final = "Error acking run queue item"
"""W&B's agent fails an item whose ack was refused, that is, one that another agent holds."""


async def ack_item(
    connection: AsyncConnection,
    item: ItemRow,
    *,
    run_name: str,
    agent_id: int | None,
    entities_of_viewer: Sequence[str],
    now: datetime,
) -> bool:
    """Claim an item for a run. A run that is under way already takes the item along at once.

    Whoever holds an item may crash its run. So an agent of another entity than the run's claims
    no run that was there before, unless the item asks for that one.
    """
    if item.run_entity not in entities_of_viewer and item.leased_at is not None:
        before = await _run_of(connection, item, run_name)
        asked_for = msgspec.json.decode(item.run_spec).get("run_id")
        if before is not None and before.created_at < item.leased_at and asked_for != run_name:
            return False
    claimed = await leases.ack(
        connection, item_id=item.id, run_name=run_name, agent_id=agent_id, now=now
    )
    if not claimed:
        return False
    run = await _run_of(connection, item, run_name)
    claim = await item_of_run(
        connection, entity=item.run_entity, project=item.run_project, run_name=run_name
    )
    if run is None or claim is None or claim.id != item.id:
        return True
    began_before_the_ack = item.leased_at is not None and run.created_at >= item.leased_at
    event = run_event(run.state, stop_requested=run.stop_requested)
    if event is not None and (began_before_the_ack or run.state == "running"):
        await follow_run(connection, claim, event, now=now)
    return True


async def fail_item(
    connection: AsyncConnection,
    item: ItemRow,
    *,
    message: str,
    stage: str,
    file_paths: Sequence[str],
    agent_id: int | None,
    now: datetime,
) -> None:
    """Take an agent's word that an item failed; what cannot fail any more stays as it is.

    An item whose run was asked to stop was stopped, whatever the agent calls it.
    """
    if ACK_REFUSED in message or (agent_id is not None and item.agent_id != agent_id):
        return
    why = {
        "message": message,
        "stage": stage,
        "file_paths": msgspec.json.encode(list(file_paths)).decode(),
    }
    failed = await connection.execute(
        update(queue_items)
        .where(queue_items.c.id == item.id, queue_items.c.state.in_(HELD))
        .values(
            **why,
            state=move(ItemState.CLAIMED, await _end_of(connection, item)),
            ended_by=EndedBy.AGENT,
            ended_at=now,
            lease_expires_at=None,
        )
    )
    if failed.rowcount == 1:
        await _give_up_run(connection, item, now=now)
        return
    await connection.execute(  # the run told of its failure first; the agent knows why
        update(queue_items)
        .where(
            queue_items.c.id == item.id,
            queue_items.c.state == ItemState.FAILED,
            queue_items.c.ended_by == EndedBy.RUN,
            queue_items.c.message.is_(None),
        )
        .values(why)
    )


async def warn_of_item(
    connection: AsyncConnection,
    item_id: int,
    *,
    message: str,
    stage: str,
    file_paths: Sequence[str],
    now: datetime,
) -> None:
    """Add a warning; the same text twice is one warning."""
    known = await connection.execute(
        select(queue_item_warnings.c.id).where(
            queue_item_warnings.c.item_id == item_id, queue_item_warnings.c.message == message
        )
    )
    if known.first() is not None:
        return
    await connection.execute(
        insert(connection, queue_item_warnings).values(
            item_id=item_id,
            message=message,
            stage=stage,
            file_paths=msgspec.json.encode(list(file_paths)).decode(),
            created_at=now,
        )
    )


async def delete_item(connection: AsyncConnection, item_id: int, *, queue_id: int) -> bool:
    """Delete an item of this queue; an agent that holds it cannot ack it any more."""
    gone = await connection.execute(
        delete(queue_items).where(queue_items.c.id == item_id, queue_items.c.queue_id == queue_id)
    )
    return gone.rowcount == 1


async def _end_of(connection: AsyncConnection, item: ItemRow) -> ItemEvent:
    run = None if item.run_name is None else await _run_of(connection, item, item.run_name)
    stopped = run is not None and run.stop_requested and run.state not in TERMINAL_STATES
    return ItemEvent.RUN_STOPPED if stopped else ItemEvent.FAIL


async def _give_up_run(connection: AsyncConnection, item: ItemRow, *, now: datetime) -> None:
    """Mark the run behind a failed item as crashed: nobody is left who could say so."""
    if item.run_name is None:
        return
    newest = await item_of_run(
        connection, entity=item.run_entity, project=item.run_project, run_name=item.run_name
    )
    run = await _run_of(connection, item, item.run_name)
    requeued = newest is not None and newest.id != item.id  # the run is another item's now
    if run is not None and run.state not in TERMINAL_STATES and not requeued:
        await set_run_state(connection, run.id, "crashed", now=now)


async def _run_of(
    connection: AsyncConnection, item: ItemRow, run_name: str
) -> Row[int, str, bool, datetime] | None:
    rows = await connection.execute(
        select(runs.c.id, runs.c.state, runs.c.stop_requested, runs.c.created_at)
        .join(projects, projects.c.id == runs.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(
            entities.c.name == item.run_entity,
            projects.c.name_folded == item.run_project,
            runs.c.name == run_name,
        )
    )
    return rows.one_or_none()
