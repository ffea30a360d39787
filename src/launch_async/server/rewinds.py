"""A run that is taken back to an earlier step, as `wandb.init(resume_from=...)` asks: what came
after it is gone, and the run goes on from there."""

from typing import Any

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.history import merge_keys, parse_line
from launch_async.server.json_text import read_json
from launch_async.server.run_rows import RunRow, document_columns
from launch_async.server.store.tables.runs import run_history, runs

METRIC = "_step"
BATCH_LINES = 1000


async def rewind(connection: AsyncConnection, run: RunRow, *, metric: str, value: float) -> None:
    """Drop the history after a step; the caller holds the run's row.

    Keys and summary become what the lines that stay say of them.
    """
    if metric != METRIC:
        raise ApiError(f"a run can be taken back to a {METRIC!r}, not to a {metric!r}")
    line, step = run_history.c.line, run_history.c.step
    own = run_history.c.run_id == run.id
    cut = await connection.scalar(select(func.min(line)).where(own, step > value))
    if cut is None:
        return
    await connection.execute(delete(run_history).where(own, line >= cut))
    last = await connection.scalar(select(func.max(step)).where(own))
    keys, summary = await _recount(connection, run.id)
    await connection.execute(
        update(runs)
        .where(runs.c.id == run.id)
        .values(
            history_lines=cut,
            last_step=-1 if last is None else last,
            history_keys=keys,
            **document_columns("summary", msgspec.json.encode(summary).decode()),
        )
    )


async def _recount(connection: AsyncConnection, run_id: int) -> tuple[str, dict[str, Any]]:
    """Return what all lines say: of the keys, in the column's form, and the newest of each."""
    statement = (
        select(run_history.c.line, run_history.c.body)
        .where(run_history.c.run_id == run_id)
        .order_by(run_history.c.line)
        .limit(BATCH_LINES)
    )
    keys, summary, after = "{}", dict[str, Any](), -1
    while True:  # in batches, as a run may have millions of lines
        rows = (await connection.execute(statement.where(run_history.c.line > after))).all()
        lines = [parse_line(row.body) for row in rows]
        keys = merge_keys(keys, lines)
        for line in lines:
            if line.metrics:  # else it was no JSON object
                summary.update(read_json(line.body))
        if len(rows) < BATCH_LINES:
            return keys, summary
        after = rows[-1].line
