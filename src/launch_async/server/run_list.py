"""Lists of runs: filtered, in any order, in pages that stay where they are while runs come."""

import base64
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.projects import ProjectRow
from launch_async.server.run_fields import field_of, sort_keys
from launch_async.server.run_filters import conditions
from launch_async.server.run_rows import RunRow, run_of, run_select
from launch_async.server.store.tables import UtcDateTime
from launch_async.server.store.tables.people import users
from launch_async.server.store.tables.runs import runs

NEWEST_FIRST = "-created_at"


class ListedRun(msgspec.Struct, frozen=True):
    """A run in a list, and where to go on after it."""

    run: RunRow
    cursor: str


class Order:
    """What a list is sorted by: a field, then the row id, so that no two runs are alike."""

    def __init__(self, text: str | None, project: ProjectRow, *, sqlite: bool) -> None:
        text = text or NEWEST_FIRST
        self._down = text.startswith("-")
        name = text.removeprefix("-").removeprefix("+")
        if name == "tags":
            raise ApiError("runs cannot be ordered by their tags")
        field = field_of(name, project, sqlite=sqlite)
        self.keys: list[Any] = [*sort_keys(field, sqlite=sqlite), runs.c.id]

    def by(self) -> list[Any]:
        """Return the ORDER BY."""
        return [key.desc() for key in self.keys] if self._down else self.keys

    def past(self, cursor: str) -> Any:
        """Return the condition for what comes after a cursor; 400 when it is none of this order."""
        values = _read_cursor(cursor, [_type_of(key) for key in self.keys])
        here, there = tuple_(*self.keys), tuple_(*values, types=[key.type for key in self.keys])
        return here < there if self._down else here > there


async def list_runs(
    connection: AsyncConnection,
    project: ProjectRow,
    *,
    filters: str | None,
    order: str | None,
    after: str | None,
    limit: int,
) -> list[ListedRun]:
    """Return runs past a cursor; without an order the newest first."""
    sorting = Order(order, project, sqlite=connection.dialect.name == "sqlite")
    chosen = await conditions(connection, project, filters)
    if after:
        chosen.append(sorting.past(after))
    # Sorted without what the runs hold: a config may be long.
    page = (
        select(runs.c.id, *(key.label(None) for key in sorting.keys))
        .join(users, users.c.id == runs.c.user_id, isouter=True)
        .where(*chosen)
        .order_by(*sorting.by())
        .limit(limit)
    )
    cursors = {row[0]: _cursor(row[1:]) for row in await connection.execute(page)}
    found = await connection.execute(run_select().where(runs.c.id.in_(cursors)))
    rows = {row.id: run_of(row, project) for row in found}
    return [ListedRun(rows[run_id], cursor) for run_id, cursor in cursors.items()]


async def count_runs(connection: AsyncConnection, project: ProjectRow, filters: str | None) -> int:
    """Return how many runs match."""
    statement = (
        select(func.count())
        .select_from(runs)
        .join(users, users.c.id == runs.c.user_id, isouter=True)
        .where(*await conditions(connection, project, filters))
    )
    return await connection.scalar(statement) or 0


def _type_of(key: Any) -> Any:
    if isinstance(key.type, UtcDateTime):
        return Annotated[datetime, msgspec.Meta(tz=True)]
    return key.type.python_type


def _cursor(values: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(list(values))).decode()


def _read_cursor(cursor: str, types: list[Any]) -> Any:
    try:
        text = base64.urlsafe_b64decode(cursor)
        values = msgspec.json.decode(text, type=tuple[tuple(types)])  # type: ignore[misc]
        return [each.astimezone(UTC) if isinstance(each, datetime) else each for each in values]
    except (ValueError, OverflowError, msgspec.DecodeError) as error:
        raise ApiError(f"{cursor!r} is no cursor of a list in this order") from error
