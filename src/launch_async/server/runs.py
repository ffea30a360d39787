"""The rules of runs: how they come to be, change, stop and go."""

import secrets
import string
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import CLAIMED_STATES
from launch_async.server import queueing
from launch_async.server.access import Role, require_role, require_run_write
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_run_id
from launch_async.server.people import author_of_run
from launch_async.server.projects import (
    DEFAULT_PROJECT,
    ProjectRow,
    check_name,
    ensure_project,
    require_project,
    resolve_entity,
)
from launch_async.server.rewinds import fork
from launch_async.server.run_rows import (
    RUN_STATES,
    TERMINAL_STATES,
    RunRow,
    document_columns,
    hold_run,
    load_run,
)
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.runs import projects, run_alerts, run_files, runs

RUN_NAME_LENGTH = 8
RUN_NAME_ALPHABET = string.ascii_lowercase + string.digits

COLUMN_OF_INPUT = {
    "group_name": "group_name",
    "display_name": "display_name",
    "description": "description",
    "notes": "notes",
    "commit": "git_commit",
    "config": "config",
    "host": "host",
    "job_program": "program",
    "job_repo": "repo",
    "job_type": "job_type",
    "sweep": "sweep_name",
    "summary_metrics": "summary",
}

Values = dict[str, Any]


async def lock_run(connection: AsyncConnection, project_id: int, run_name: str) -> int | None:
    """Return the row id of a run by name, None when there is none.

    Nobody else changes the run until the transaction ends.
    """
    rows = await connection.execute(
        select(runs.c.id)
        .where(runs.c.project_id == project_id, runs.c.name == run_name)
        .with_for_update(key_share=True)
    )
    return rows.scalar_one_or_none()


async def upsert_run(
    connection: AsyncConnection, request: Request, given: Values
) -> tuple[RunRow, bool]:
    """Make or change a run as UpsertBucket asks; null leaves a field as it is.

    Returns the run and whether it is new. Repeating it does no harm.
    """
    changes = _changes(given)
    project, run_name = await _whereabouts(connection, request, given)
    run_id = await lock_run(connection, project.id, run_name)
    if run_id is None:  # another request may make it at this moment
        await hold_run(
            connection, entity=project.entity_name, project=project.name, run_name=run_name
        )
        run_id = await lock_run(connection, project.id, run_name)
    inserted = run_id is None
    if run_id is None:
        run_id = await insert_run(connection, request, project, run_name, changes)
        await fork(connection, project, run_name, run_id, changes.get("config", "{}"))
    elif changes:
        await connection.execute(update(runs).where(runs.c.id == run_id).values(**changes))
    state = given.get("state") or ("running" if inserted else None)
    if state is not None:
        await set_run_state(connection, run_id, state, now=request.now())
    return await _reload(connection, project, run_name), inserted


async def insert_run(
    connection: AsyncConnection,
    request: Request,
    project: ProjectRow,
    run_name: str,
    changes: Values,
) -> int:
    """Make a run in state pending and return its row id; a run that is there already stays."""
    check_name("run", run_name)
    now = request.now()
    fresh: Values = {
        "display_name": run_name,
        "tags": "[]",
        "config": "{}",
        "summary": "{}",
        **changes,
        "project_id": project.id,
        "name": run_name,
        "state": "pending",
        "stop_requested": False,
        "user_id": await author_of_run(connection, request, project.entity_id),
        "created_at": now,
        "heartbeat_at": now,
        "history_lines": 0,
        "event_lines": 0,
        "console_lines": 0,
        "last_step": -1,
        "history_keys": "{}",
    }
    await hold_run(connection, entity=project.entity_name, project=project.name, run_name=run_name)
    await connection.execute(insert(connection, runs).values(fresh).on_conflict_do_nothing())
    run_id = await lock_run(connection, project.id, run_name)
    if run_id is None:
        raise ApiError("the project of this run is gone", status=404)
    return run_id


async def set_run_state(
    connection: AsyncConnection,
    run_row_id: int,
    state: str,
    *,
    exit_code: int | None = None,
    now: datetime,
) -> None:
    """Change a run's state: the one place that does, so that its queue item follows it."""
    if state not in RUN_STATES:
        known = ", ".join(sorted(RUN_STATES))
        raise ApiError(f"a run cannot be {state!r}; it can be {known}")
    rows = await connection.execute(
        select(runs.c.name, runs.c.state, runs.c.exit_code, projects.c.name, entities.c.name)
        .join(projects, projects.c.id == runs.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(runs.c.id == run_row_id)
        .with_for_update(of=runs, key_share=True)
    )
    run_name, old_state, old_exit_code, project, entity = rows.one()
    if (old_state, old_exit_code) == (state, exit_code):
        return
    ended = state in TERMINAL_STATES
    values: Values = {"state": state, "exit_code": exit_code, "finished_at": now if ended else None}
    if old_state in TERMINAL_STATES and not ended:
        values["stop_requested"] = False  # a resumed run is not the one that was asked to stop
    if not ended:
        values["heartbeat_at"] = now
    await connection.execute(update(runs).where(runs.c.id == run_row_id).values(**values))
    await queueing.run_changed(
        connection,
        entity=entity,
        project=project,
        run_name=run_name,
        state=state,
        now=now,
    )


async def require_run(
    connection: AsyncConnection,
    request: Request,
    *,
    entity: str | None,
    project: str | None,
    run_name: str,
) -> RunRow:
    """Return the run by names; 404 when it is missing or not the viewer's to see."""
    place = await require_project(connection, request, entity, project)
    return await _reload(connection, place, run_name)


async def require_writable_run(
    connection: AsyncConnection,
    request: Request,
    *,
    entity: str | None,
    project: str | None,
    run_name: str,
) -> RunRow:
    """Return the run by names; 403 when the viewer may not write it, 404 when it is missing."""
    place = entity or request.viewer.entity
    require_run_write(request.viewer, place, project or DEFAULT_PROJECT, run_name)
    return await require_run(connection, request, entity=place, project=project, run_name=run_name)


async def require_members_run(
    connection: AsyncConnection, request: Request, storage_id: str
) -> RunRow:
    """Return the run by its storage id, for a change; 403 when the viewer is no member of its
    entity."""
    run_name, project, entity = decode_run_id(storage_id)
    require_role(request.viewer, entity, Role.MEMBER)
    place = await require_project(connection, request, entity, project)
    return await _reload(connection, place, run_name, lock=True)


async def require_write_by_number(
    connection: AsyncConnection, request: Request, run_id: int
) -> None:
    """Raise a 403 unless the viewer may write the run with this row id."""
    rows = await connection.execute(
        select(entities.c.name, projects.c.name, runs.c.name)
        .join(projects, projects.c.entity_id == entities.c.id)
        .join(runs, runs.c.project_id == projects.c.id)
        .where(runs.c.id == run_id)
    )
    for entity, project, run_name in rows:
        require_run_write(request.viewer, entity, project, run_name)


async def request_stop(connection: AsyncConnection, request: Request, storage_id: str) -> None:
    """Ask a run to stop: its process hears it with its next file_stream, its agent by a query.

    A run that an agent has claimed an item for may be stopped before it says a word: it is made
    then, so that both hear of the stop. One that ended already is no error; if it is to be resumed,
    its next life is stopped.
    """
    run_name, project_name, entity_name = decode_run_id(storage_id)
    entity = await resolve_entity(connection, request, entity_name, need=Role.MEMBER)
    claimed = await queueing.item_of_run(
        connection, entity=entity.name, project=project_name, run_name=run_name
    )
    at_an_agent = claimed is not None and claimed.state in CLAIMED_STATES
    if at_an_agent:
        place = await ensure_project(
            connection, entity.id, project_name, user_id=request.viewer.user_id
        )
        await insert_run(connection, request, place, run_name, {})
    run = await require_members_run(connection, request, storage_id)
    if at_an_agent or not run.ended:
        await queueing.ask_run_to_stop(connection, run.id, stop=True)
    if claimed is not None:
        await queueing.ask_item_to_stop(connection, claimed.id)


async def delete_run(connection: AsyncConnection, run: RunRow, *, now: datetime) -> list[int]:
    """Delete a run and its lines; its artifacts stay. Returns the row ids of its files.

    Their blobs are the caller's to delete, once the transaction has held.
    """
    if not run.ended:
        await set_run_state(connection, run.id, "killed", now=now)
    rows = await connection.execute(select(run_files.c.id).where(run_files.c.run_id == run.id))
    file_ids = list(rows.scalars())
    await connection.execute(delete(runs).where(runs.c.id == run.id))
    return file_ids


async def add_alert(
    connection: AsyncConnection,
    run: RunRow,
    *,
    title: str,
    text: str,
    severity: str,
    now: datetime,
) -> None:
    """Keep an alert that a run raised."""
    await connection.execute(
        insert(connection, run_alerts).values(
            run_id=run.id, title=title, text=text, severity=severity, created_at=now
        )
    )


async def alerts_of(connection: AsyncConnection, run_id: int, *, limit: int) -> list[Values]:
    """Return what a run raised, the newest first."""
    rows = await connection.execute(
        select(
            run_alerts.c.title, run_alerts.c.text, run_alerts.c.severity, run_alerts.c.created_at
        )
        .where(run_alerts.c.run_id == run_id)
        .order_by(run_alerts.c.id.desc())
        .limit(limit)
    )
    return [dict(row) for row in rows.mappings()]


async def _whereabouts(
    connection: AsyncConnection, request: Request, given: Values
) -> tuple[ProjectRow, str]:
    """Return the project (made when missing) and the run name that an UpsertBucket means."""
    if given.get("id"):
        run_name, project_name, entity_name = decode_run_id(given["id"])
        require_run_write(request.viewer, entity_name, project_name, run_name)
        project = await require_project(connection, request, entity_name, project_name)
        if await lock_run(connection, project.id, run_name) is None:
            raise ApiError(f"run {entity_name}/{project_name}/{run_name} not found", status=404)
        return project, run_name
    entity = await resolve_entity(connection, request, given.get("entity_name"))
    project_name = given.get("model_name") or DEFAULT_PROJECT
    run_name = given.get("name") or _random_name()
    require_run_write(request.viewer, entity.name, project_name, run_name)
    project = await ensure_project(
        connection, entity.id, project_name, user_id=request.viewer.user_id
    )
    return project, run_name


def _changes(given: Values) -> Values:
    changes: Values = {
        column: given[name]
        for name, column in COLUMN_OF_INPUT.items()
        if given.get(name) is not None
    }
    if given.get("tags") is not None:
        changes["tags"] = msgspec.json.encode(given["tags"]).decode()
    for column in ("config", "summary"):
        if column not in changes:
            continue
        try:
            changes |= document_columns(column, changes[column])
        except ValueError as error:
            raise ApiError(f"a run's {column} is a JSON object: {error}") from error
    return changes


async def _reload(
    connection: AsyncConnection, project: ProjectRow, run_name: str, *, lock: bool = False
) -> RunRow:
    run = await load_run(connection, project, run_name, lock=lock)
    if run is None:
        raise ApiError(f"run {project.entity_name}/{project.name}/{run_name} not found", status=404)
    return run


def _random_name() -> str:
    return "".join(secrets.choice(RUN_NAME_ALPHABET) for _ in range(RUN_NAME_LENGTH))
