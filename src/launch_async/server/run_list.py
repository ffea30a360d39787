"""Lists of runs: which filters and orders are understood. Others are refused, never ignored.

Filters are W&B's MongoDB-like JSON; only conjunctions of equalities are served.
"""

from typing import Any

from sqlalchemy import ColumnElement, false, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.json_text import read_json
from launch_async.server.projects import ProjectRow
from launch_async.server.run_rows import RunRow, run_of, run_select
from launch_async.server.store.tables.people import users
from launch_async.server.store.tables.runs import runs

COLUMN_OF_FILTER: dict[str, ColumnElement[Any]] = {
    "name": runs.c.name,
    "display_name": runs.c.display_name,
    "displayName": runs.c.display_name,
    "state": runs.c.state,
    "group": runs.c.group_name,
    "job_type": runs.c.job_type,
    "jobType": runs.c.job_type,
    "sweep": runs.c.sweep_name,
    "sweepName": runs.c.sweep_name,
    "username": users.c.username,
}
OLDEST_FIRST = frozenset({"+created_at", "created_at", "+createdAt", "createdAt"})
MAX_CHOICES = 1000
MAX_CONDITIONS = 100  # SQLite takes expressions of a thousand levels
MAX_DEPTH = 16
NEWEST_FIRST = frozenset({"-created_at", "-createdAt"})

Condition = ColumnElement[bool]


async def list_runs(
    connection: AsyncConnection,
    project: ProjectRow,
    *,
    filters: str | None,
    order: str | None,
    after_id: int,
    limit: int,
) -> list[RunRow]:
    """Return runs past the one with row id `after_id`, in order of their making."""
    newest_first = _newest_first(order)
    statement = run_select().where(*conditions(project, filters))
    if after_id:
        statement = statement.where(runs.c.id < after_id if newest_first else runs.c.id > after_id)
    statement = statement.order_by(runs.c.id.desc() if newest_first else runs.c.id).limit(limit)
    return [run_of(row, project) for row in await connection.execute(statement)]


async def count_runs(connection: AsyncConnection, project: ProjectRow, filters: str | None) -> int:
    """Return how many runs match."""
    statement = (
        select(func.count())
        .select_from(runs)
        .join(users, users.c.id == runs.c.user_id, isouter=True)
        .where(*conditions(project, filters))
    )
    return await connection.scalar(statement) or 0


def conditions(project: ProjectRow, filters: str | None) -> list[Condition]:
    """Return the WHERE of a list; 400 for a filter that is not understood."""
    return [runs.c.project_id == project.id, *_understand(_parse(filters))]


def _parse(filters: str | None) -> Any:
    return read_json(filters) if filters else {}


def _understand(part: Any, depth: int = 0) -> list[Condition]:
    if not isinstance(part, dict):
        raise ApiError("run filters are a JSON object")
    if depth > MAX_DEPTH:
        raise ApiError("these run filters are nested too deeply")
    found: list[Condition] = []
    for key, value in part.items():
        if key == "$and" and isinstance(value, list):
            for inner in value:
                found += _understand(inner, depth + 1)
        elif key == "$or" and isinstance(value, list) and len(value) == 1:
            found += _understand(value[0], depth + 1)
        else:
            found.append(_equality(key, value))
    if len(found) > MAX_CONDITIONS:
        raise ApiError(f"run filters have at most {MAX_CONDITIONS} conditions here")
    return found


def _equality(key: str, value: Any) -> Condition:
    column = COLUMN_OF_FILTER.get(key)
    if column is None:
        known = ", ".join(sorted(COLUMN_OF_FILTER))
        raise ApiError(f"runs cannot be filtered by {key!r} here; by {known} they can")
    match value:
        case str() | None:
            return column.is_(None) if value is None else column == value
        case {"$eq": str(wanted)}:
            return column == wanted
        case {"$ne": str(unwanted)}:
            return column.is_distinct_from(unwanted)
        case {"$in": list(choices)} if len(choices) <= MAX_CHOICES and all(
            isinstance(choice, str) for choice in choices
        ):
            return column.in_(choices) if choices else false()
        case _:
            raise ApiError(f"the filter on {key!r} is not understood here; use a text or $in")


def _newest_first(order: str | None) -> bool:
    if not order:
        return True
    if order in OLDEST_FIRST | NEWEST_FIRST:
        return order in NEWEST_FIRST
    raise ApiError(f"runs cannot be ordered by {order!r} here; by created_at they can")
