"""What agents say about items: leased, claimed, failed, warned of.

On PostgreSQL a run's row is locked before its item's, here as where a run's word moves its item.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Row, and_, bindparam, case, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import HELD, EndedBy, ItemEvent, ItemState, move, run_event
from launch_async.server import leases
from launch_async.server.access import Role, Viewer
from launch_async.server.agents import Poll, set_status
from launch_async.server.items import ItemRow
from launch_async.server.leases import Holder, PoppedItem, held_by
from launch_async.server.queueing import ask_run_to_stop, follow_run, item_of_run
from launch_async.server.run_rows import TERMINAL_STATES, hold_run, run_lock
from launch_async.server.runs import set_run_state
from launch_async.server.store.engine import insert
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.queues import queue_item_warnings, queue_items
from launch_async.server.store.tables.runs import projects, runs

ACK_REFUSED: Final = "Error acking run queue item"
"""W&B's agent fails an item whose ack was refused, that is, one that another agent holds."""

MAX_STAGE: Final = 64
MAX_MESSAGE: Final = 64 * 1024  # what is longer is cut: a refusal would keep the agent's slot
MAX_PATHS: Final = 100
MAX_WARNINGS: Final = 100  # of one item; later ones are dropped
HEARD_EVERY: Final = timedelta(seconds=5)
"""An agent that polls many queues is noted once in a while, or its row would be all they do."""


async def pop_item(
    connection: AsyncConnection, poll: Poll, *, digest: str | None, now: datetime
) -> PoppedItem | None:
    """Lease a queue's first item; None when none waits, the queue is paused, or its limit is
    reached. `digest`: of a key for the item's run."""
    heard = poll.heartbeat_at
    if poll.agent_id is not None and heard is not None and heard < now - HEARD_EVERY:
        await set_status(connection, poll.agent_id, None, now=now)
    if poll.paused_at is not None:
        return None
    if poll.concurrency_limit is not None and not await leases.has_room(
        connection, poll.queue_id, now=now
    ):
        return None
    return await leases.pop(
        connection, queue_id=poll.queue_id, agent_id=poll.agent_id, digest=digest, now=now
    )


async def ack_item(
    connection: AsyncConnection,
    item: ItemRow,
    *,
    run_name: str,
    lease: str | None,
    viewer: Viewer,
    now: datetime,
) -> bool:
    """Claim an item for a run. A run that is under way already takes the item along at once.

    What follows the claim is done again when the ack is repeated, as it is when its answer is lost.
    """
    own = viewer.may(item.run_entity, Role.MEMBER)
    if not own and not await _may_take(connection, item, run_name):
        return False
    names = {"entity": item.run_entity, "project": item.run_project, "run_name": run_name}
    claimed = await leases.ack(
        connection,
        item_id=item.id,
        run_name=run_name,
        lock=run_lock(**names),
        holder=Holder(user_id=viewer.user_id, lease=lease),
        now=now,
    )
    if not claimed:
        return False
    if not await _is_there(connection, item, run_name):
        return True
    run = await lock_run(connection, item, run_name)
    if run is None:
        return True
    claim = await item_of_run(
        connection, entity=item.run_entity, project=item.run_project, run_name=run_name
    )
    if claim is None or claim.id != item.id:
        return True
    began_before_the_ack = item.leased_at is not None and run.created_at >= item.leased_at
    event = run_event(run.state, stop_requested=run.stop_requested)
    if event is not None and (began_before_the_ack or run.state == "running"):
        await follow_run(connection, claim, event, now=now)
    elif run.state in TERMINAL_STATES and run.stop_requested and not claim.stop_requested:
        # An earlier life was stopped. The agent asks for this flag and would stop the new one.
        await ask_run_to_stop(connection, run.id, stop=False)
    return True


async def fail_item(
    connection: AsyncConnection,
    item: ItemRow,
    *,
    message: str,
    stage: str,
    file_paths: Sequence[str],
    lease: str | None,
    viewer: Viewer,
    now: datetime,
) -> None:
    """Take an agent's word that an item failed; what cannot fail any more stays as it is.

    An item that was asked to stop was stopped, whatever the agent calls it.
    """
    if ACK_REFUSED in message:
        return
    holder = Holder(user_id=viewer.user_id, lease=lease)
    run = None if item.run_name is None else await lock_run(connection, item, item.run_name)
    why = _told(message, stage, file_paths)
    run_stopped = run is not None and run.stop_requested and run.state not in TERMINAL_STATES
    stopped = or_(queue_items.c.stop_requested, literal(run_stopped))
    lapsed = and_(queue_items.c.state == ItemState.LEASED, queue_items.c.lease_expires_at <= now)
    failed = await connection.execute(
        update(queue_items)
        .where(queue_items.c.id == item.id, queue_items.c.state.in_(HELD), ~lapsed, held_by(holder))
        .values(
            **why,
            state=case(
                (stopped, move(ItemState.CLAIMED, ItemEvent.RUN_STOPPED)),
                else_=move(ItemState.CLAIMED, ItemEvent.FAIL),
            ),
            ended_by=EndedBy.AGENT,
            ended_at=now,
            lease_expires_at=None,
        )
    )
    if failed.rowcount == 1:
        await give_up_run(connection, item, now=now)
        return
    await connection.execute(  # the run told of its failure first; the agent knows why
        update(queue_items)
        .where(
            queue_items.c.id == item.id,
            queue_items.c.state == ItemState.FAILED,
            queue_items.c.ended_by == EndedBy.RUN,
            queue_items.c.message.is_(None),
            held_by(holder),
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
    lease: str | None,
    viewer: Viewer,
    now: datetime,
) -> None:
    """Add a warning of whoever popped the item last, if there are not too many.

    The same text twice is one warning.
    """
    holder = Holder(user_id=viewer.user_id, lease=lease)
    its_own = await connection.execute(
        select(queue_items.c.id)
        .where(queue_items.c.id == item_id, held_by(holder))
        .with_for_update()
    )
    known = await connection.execute(
        select(queue_item_warnings.c.message).where(queue_item_warnings.c.item_id == item_id)
    )
    messages = set(known.scalars())
    told = _told(message, stage, file_paths)
    if its_own.first() is None or told["message"] in messages or len(messages) >= MAX_WARNINGS:
        return
    await connection.execute(
        insert(connection, queue_item_warnings).values(item_id=item_id, created_at=now, **told)
    )


async def give_up_run(connection: AsyncConnection, item: ItemRow, *, now: datetime) -> None:
    """Mark the run behind an item as crashed: nobody is left who could say so."""
    if item.run_name is None:
        return
    newest = await item_of_run(
        connection, entity=item.run_entity, project=item.run_project, run_name=item.run_name
    )
    run = await lock_run(connection, item, item.run_name)
    requeued = newest is not None and newest.id != item.id  # the run is another item's now
    if run is not None and run.state not in TERMINAL_STATES and not requeued:
        await set_run_state(connection, run.id, "crashed", now=now)


def _told(message: str, stage: str, file_paths: Sequence[str]) -> dict[str, str]:
    """Return what an agent tells of an item as it is kept."""
    return {
        "message": message[:MAX_MESSAGE],
        "stage": stage[:MAX_STAGE],
        "file_paths": msgspec.json.encode(file_paths[:MAX_PATHS]).decode(),
    }


async def _may_take(connection: AsyncConnection, item: ItemRow, run_name: str) -> bool:
    """Tell whether an agent that may not write its entity's runs may claim an item for this one.

    Whoever holds an item may crash its run. So it claims no run that is there, unless the item asks
    for that one, or has it already.
    """
    await hold_run(connection, entity=item.run_entity, project=item.run_project, run_name=run_name)
    run = await lock_run(connection, item, run_name)
    if run is None or item.run_name == run_name:
        return True
    return bool(msgspec.json.decode(item.run_spec).get("run_id") == run_name)


async def _is_there(connection: AsyncConnection, item: ItemRow, run_name: str) -> bool:
    named = {"entity": item.run_entity, "project": item.run_project, "run": run_name}
    return (await connection.execute(RUN, named)).first() is not None


async def lock_run(
    connection: AsyncConnection, item: ItemRow, run_name: str
) -> Row[int, str, bool, datetime] | None:
    """Return an item's run, which nobody else changes until the transaction ends."""
    named = {"entity": item.run_entity, "project": item.run_project, "run": run_name}
    return (await connection.execute(LOCKED_RUN, named)).one_or_none()


RUN_BY_NAMES: Final = (
    select(runs.c.id, runs.c.state, runs.c.stop_requested, runs.c.created_at)
    .join(projects, projects.c.id == runs.c.project_id)
    .join(entities, entities.c.id == projects.c.entity_id)
    .where(
        entities.c.name == bindparam("entity"),
        projects.c.name_folded == bindparam("project"),
        runs.c.name == bindparam("run"),
    )
)
RUN: Final = often(RUN_BY_NAMES, alone=True)
LOCKED_RUN: Final = often(RUN_BY_NAMES.with_for_update(of=runs, key_share=True))
