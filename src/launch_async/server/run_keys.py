"""Keys made for one run each, so that a job needs no key of a person or of its agent.

    pop: a fresh key goes into the popped spec -> ack: it writes that run -> end: it is refused

The key of an item is replaced at each pop, and in force as long as the item is open. A run that
fell silent is only given up as crashed and may be heard again: its key lasts for a while longer.
A run that told its end may not have got the answer: for as long it may tell that end again.
"""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import EndedBy, ItemState
from launch_async.server.access import RunScope
from launch_async.server.leases import state_now
from launch_async.server.queueing import item_of_run
from launch_async.server.run_specs import API_KEY, SCHEDULER_URI
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import entities, memberships, users
from launch_async.server.store.tables.queues import queue_items, run_keys, run_queues
from launch_async.server.store.tables.runs import projects, runs
from launch_async.server.users import KEY_BYTES

OPEN: Final = frozenset({ItemState.LEASED, ItemState.CLAIMED, ItemState.RUNNING})
SILENCE: Final = timedelta(hours=24)
"""How long a run that was given up as crashed may still be heard under its key, and one that has
ended may tell that again."""

SCOPE_COLUMNS: Final = (
    queue_items.c.id.label("item_id"),
    queue_items.c.state,
    queue_items.c.ended_by,
    queue_items.c.ended_at,
    queue_items.c.lease_expires_at,
    queue_items.c.run_entity,
    queue_items.c.run_project_folded,
    queue_items.c.run_name,
)
"""What `scope_of` reads of a row."""

HOLDERS: Final = (
    run_keys.join(queue_items, queue_items.c.id == run_keys.c.item_id)
    .join(run_queues, run_queues.c.id == queue_items.c.queue_id)
    .join(projects, projects.c.id == run_queues.c.project_id)
    .join(users, users.c.id == run_keys.c.user_id)
    .join(memberships, memberships.c.user_id == users.c.id)
    .join(entities, entities.c.id == memberships.c.entity_id)
)
"""A run's key with its item's author, once for each entity that the author belongs to."""

IN_REACH: Final = or_(
    entities.c.name == queue_items.c.run_entity, entities.c.id == projects.c.entity_id
)
"""Of these entities, the run's and the queue's: the only ones that a run's key can see."""

FORGET: Final = often(delete(run_keys).where(run_keys.c.item_id == bindparam("item")), alone=True)


def fresh_key() -> str:
    """Return a key that nobody has."""
    return secrets.token_hex(KEY_BYTES)


async def with_key(
    connection: AsyncConnection, spec: Mapping[str, Any], item_id: int, key: str
) -> dict[str, Any]:
    """Return a popped spec with its fresh key in it, unless the item came with one.

    When whoever pushed the item is gone, its key opens nothing, as that of somebody who may not
    write there any more: without one the run would get its agent's, which opens more.

    The scheduler of a sweep pushes items of its own, for which a run's key is not enough.
    """
    if spec.get(API_KEY) or spec.get("uri") == SCHEDULER_URI:
        await connection.execute(FORGET, {"item": item_id})  # the pop could not know
        return dict(spec)
    return {**spec, API_KEY: key}


async def scope_of(
    connection: AsyncConnection, row: Row[*tuple[Any, ...]], *, now: datetime
) -> RunScope | None:
    """Return the run that a key may write, by the SCOPE_COLUMNS of its item; None: it is dead."""
    standing = state_now(row.state, row.lease_expires_at, now)
    in_force = standing in OPEN or await _fell_silent(connection, row, now=now)
    if not in_force and not (row.ended_by == EndedBy.RUN and row.ended_at > now - SILENCE):
        return None
    return RunScope(
        item_id=row.item_id,
        entity=row.run_entity,
        project_folded=row.run_project_folded,
        run_name=row.run_name,
        ended=not in_force,
    )


async def _fell_silent(
    connection: AsyncConnection, row: Row[*tuple[Any, ...]], *, now: datetime
) -> bool:
    """Tell whether nobody ended the run, but it was not heard for a while."""
    if (row.state, row.ended_by) != (ItemState.FAILED, EndedBy.RUN):
        return False
    newest = await item_of_run(
        connection, entity=row.run_entity, project=row.run_project_folded, run_name=row.run_name
    )
    if newest is None or newest.id != row.item_id:
        return False  # the run is another item's now
    given_up = await connection.execute(
        select(runs.c.id)
        .join(projects, projects.c.id == runs.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(
            entities.c.name == row.run_entity,
            projects.c.name_folded == row.run_project_folded,
            runs.c.name == row.run_name,
            runs.c.state == "crashed",
            runs.c.finished_at > now - SILENCE,
        )
    )
    return given_up.first() is not None
