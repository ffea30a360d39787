"""History lines of runs: what is known of their keys, and reading them back.

A line is a JSON object: the user's metrics with `_step`, `_timestamp` and `_runtime`. Nested
metrics are known by dotted names.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.json_text import MAX_INT, read_json
from launch_async.server.store.tables.runs import run_history

MAX_DEPTH = 16
MAX_KEYS = 10_000  # a run that invents a key per step must not make its row grow without end

MAX_LINE = 2_000_000_000  # GraphQL counts lines in 32 bits
NO_KEYS = "{}"
KINDS = {type(None): "nil", bool: "boolean", int: "number", float: "number", list: "list"}


class Line(msgspec.Struct, frozen=True):
    """One history line: its text, and what its text says."""

    body: str
    step: int | None
    metrics: dict[str, Any]


def parse_line(body: str) -> Line:
    """Read a line; one that is no JSON object is kept as it is and has no metrics."""
    try:
        content = read_json(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return Line(body, None, {})
    return Line(body, _whole(content.get("_step")), dict(flatten(content)))


def flatten(content: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of each metric; media objects (with `_type`) stay whole."""
    for key, value in content.items():
        if isinstance(value, dict) and value and "_type" not in value and depth < MAX_DEPTH:
            yield from flatten(value, f"{prefix}{key}.", depth + 1)
        else:
            yield prefix + key, value


def merge_keys(known_json: str, lines: Sequence[Line]) -> str:
    """Return what is known of a run's keys after more lines, in W&B's form."""
    known: dict[str, Any] = read_json(known_json)
    for line in lines:
        for name, value in line.metrics.items():
            entry = known.get(name)
            if entry is None:
                if len(known) >= MAX_KEYS:
                    continue
                entry = known[name] = {"typeCounts": [], "monotonic": True, "previousValue": None}
            _count(entry, value)
    return msgspec.json.encode(known).decode()


def history_keys(known_json: str, last_step: int) -> dict[str, Any]:
    """Return the `historyKeys` field."""
    return {"lastStep": last_step, "keys": read_json(known_json), "sets": []}


async def tail(connection: AsyncConnection, table: Table, run_id: int) -> list[str]:
    """Return the last line, in a list of one or none."""
    rows = await connection.execute(
        select(table.c.body).where(table.c.run_id == run_id).order_by(table.c.line.desc()).limit(1)
    )
    return list(rows.scalars())


async def page(
    connection: AsyncConnection,
    run_id: int,
    *,
    min_step: int | None,
    max_step: int | None,
    limit: int,
) -> list[str]:
    """Return lines in step order, from `min_step` up to `max_step`, not including it."""
    rows = await connection.execute(
        select(run_history.c.body)
        .where(run_history.c.run_id == run_id, *between(min_step, max_step))
        .order_by(run_history.c.step, run_history.c.line)
        .limit(limit)
    )
    return list(rows.scalars())


def between(min_step: int | None, max_step: int | None) -> list[ColumnElement[bool]]:
    """Return the conditions for lines from `min_step` up to `max_step`, not including it."""
    bounds: list[ColumnElement[bool]] = []
    if min_step is not None:
        bounds.append(run_history.c.step >= min_step)
    if max_step is not None:
        bounds.append(run_history.c.step < max_step)
    return bounds


def _count(entry: dict[str, Any], value: Any) -> None:
    kind = _kind_of(value)
    counts: list[dict[str, Any]] = entry["typeCounts"]
    for count in counts:
        if count["type"] == kind:
            count["count"] += 1
            break
    else:
        counts.append({"type": kind, "count": 1})
    if kind == "number" and math.isfinite(value):
        before = entry["previousValue"]
        entry["monotonic"] = entry["monotonic"] and (before is None or value >= before)
        entry["previousValue"] = value
    else:
        entry["monotonic"] = False


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("_type", "map"))
    return KINDS.get(type(value), "string")


def _whole(value: Any) -> int | None:
    """Return a step as an int; the client may write it as 3.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_INT:
        return None
    return value
