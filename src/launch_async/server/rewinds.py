"""Runs that go on from an earlier step: of themselves, or of another run that they fork.

wandb.init(resume_from="a?_step=9")   rewindRun; what came after the step is gone
wandb.init(fork_from="a?_step=9")     a new run whose config names the step; it says so
"""

from typing import Any

import msgspec
from sqlalchemy import and_, delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.history import MAX_LINE, NO_KEYS, merge_keys, parse_line
from launch_async.server.json_text import read_json
from launch_async.server.projects import ProjectRow
from launch_async.server.run_rows import RunRow, document_columns
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.runs import run_console, run_events, run_history, runs

METRIC = "_step"
BATCH_LINES = 1000


async def rewind(connection: AsyncConnection, run: RunRow, *, metric: str, value: float) -> None:
    """Drop the history after a step; the caller holds the run's row.

    Keys and summary become what the lines that stay say of them. Events and console lines go, as
    the client numbers them from 0 again.
    """
    if metric != METRIC:
        raise ApiError(f"a run can be taken back to a {METRIC!r}, not to a {metric!r}")
    line, step = run_history.c.line, run_history.c.step
    own = run_history.c.run_id == run.id
    cut = await connection.scalar(select(func.min(line)).where(own, step > value))
    if cut is not None:
        await connection.execute(delete(run_history).where(own, line >= cut))
    for table in (run_events, run_console):
        await connection.execute(delete(table).where(table.c.run_id == run.id))
    values: dict[str, Any] = {"event_lines": 0, "console_lines": 0}
    if cut is not None:
        values |= await _recounted(connection, run.id)
        values["history_lines"] = max(0, cut)
    await connection.execute(update(runs).where(runs.c.id == run.id).values(**values))


async def fork(
    connection: AsyncConnection, project: ProjectRow, run_name: str, run_id: int, config: str
) -> None:
    """Give a new run the history of the run that its config says it forks, up to that step.

    The client numbers its own lines from 0, so the others stand before them, below 0.
    """
    point = _branch_point(config)
    if point is None or point.run_id == run_name:  # a rewind names its own run
        return
    parent = await connection.scalar(
        select(runs.c.id).where(runs.c.project_id == project.id, runs.c.name == point.run_id)
    )
    if parent is None:
        raise ApiError(
            f"run {project.entity_name}/{project.name}/{point.run_id}, which {run_name} is to fork "
            "from, is not there",
            status=404,
        )
    line, theirs = run_history.c.line, run_history.c.run_id == parent
    cut = await connection.scalar(
        select(func.min(line)).where(theirs, run_history.c.step > point.step)
    )
    kept = theirs if cut is None else and_(theirs, line < cut)
    last = await connection.scalar(select(func.max(line)).where(kept))
    if last is None:
        return
    copied = select(
        literal(run_id), line - literal(last + 1), run_history.c.step, run_history.c.body
    ).where(kept)
    columns = ["run_id", "line", "step", "body"]
    await connection.execute(insert(connection, run_history).from_select(columns, copied))
    values = await _recounted(connection, run_id)
    await connection.execute(update(runs).where(runs.c.id == run_id).values(**values))


class _Point(msgspec.Struct, frozen=True):
    run_id: str
    step: float


def _branch_point(config: str) -> _Point | None:
    content = read_json(config)
    for key in ("_wandb", "value", "branch_point"):
        content = content.get(key) if isinstance(content, dict) else None
    try:
        return None if content is None else msgspec.convert(content, _Point)
    except msgspec.ValidationError as error:
        raise ApiError(f"a run's branch_point is {{run_id, step}}: {error}") from error


async def _recounted(connection: AsyncConnection, run_id: int) -> dict[str, Any]:
    """Return the columns that say what all lines of a run say."""
    statement = (
        select(run_history.c.line, run_history.c.step, run_history.c.body)
        .where(run_history.c.run_id == run_id)
        .order_by(run_history.c.line)
        .limit(BATCH_LINES)
    )
    keys, summary, last_step, after = NO_KEYS, dict[str, Any](), -1, -MAX_LINE
    while True:  # in batches, as a run may have millions of lines
        rows = (await connection.execute(statement.where(run_history.c.line > after))).all()
        lines = [parse_line(row.body) for row in rows]
        keys = merge_keys(keys, lines)
        last_step = max([last_step, *(row.step for row in rows if row.step is not None)])
        for line in lines:
            if line.metrics:  # else it was no JSON object
                summary.update(read_json(line.body))
        if len(rows) < BATCH_LINES:
            break
        after = rows[-1].line
    text = msgspec.json.encode(summary).decode()
    return {
        "last_step": last_step,
        "history_keys": keys,
        **document_columns("summary", text),
    }
