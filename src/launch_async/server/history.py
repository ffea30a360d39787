"""History lines of runs: what is known of their keys, and reading them back.

A line is a JSON object: the user's metrics with `_step`, `_timestamp` and `_runtime`. Nested
metrics are known by dotted names.
"""

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.json_text import MAX_INT, read_json
from launch_async.server.store.tables.runs import run_history

BATCH_LINES = 1000
DEFAULT_SAMPLES = 500
MAX_SAMPLES = 10_000
MAX_SPECS = 100
MAX_DEPTH = 16
MAX_KEYS = 10_000  # a run that invents a key per step must not make its row grow without end

NO_KEYS = "{}"
KINDS = {type(None): "nil", bool: "boolean", int: "number", float: "number", list: "list"}


class Line(msgspec.Struct, frozen=True):
    """One history line: its text, and what its text says."""

    body: str
    step: int | None
    metrics: dict[str, Any]


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """What one sampled history asks for."""

    keys: list[str] = []
    samples: int = DEFAULT_SAMPLES
    min_step: int | None = None
    max_step: int | None = None

    def end(self) -> int | None:
        """Return the first step that is wanted no more.

        Clients before 0.28 name just that, as in a page. Later ones name the last step that they
        want, and ask for as many samples as there are steps.
        """
        if self.max_step is None or self.min_step is None:
            return self.max_step
        steps = self.max_step - self.min_step + 1
        return self.max_step + 1 if self.samples == steps else self.max_step


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
        .where(run_history.c.run_id == run_id, *_steps(min_step, max_step))
        .order_by(run_history.c.step, run_history.c.line)
        .limit(limit)
    )
    return list(rows.scalars())


async def evenly(
    connection: AsyncConnection, table: Table, run_id: int, *, samples: int
) -> list[str]:
    """Return about `samples` lines spread over the whole run, the last one among them."""
    last = await connection.scalar(select(func.max(table.c.line)).where(table.c.run_id == run_id))
    if last is None:
        return []
    stride = max(1, -(-(last + 1) // max(1, min(samples, MAX_SAMPLES))))
    wanted = (last - table.c.line) % stride == 0
    rows = await connection.execute(
        select(table.c.body).where(table.c.run_id == run_id, wanted).order_by(table.c.line)
    )
    return list(rows.scalars())


async def sampled(connection: AsyncConnection, run_id: int, spec: Spec) -> list[dict[str, Any]]:
    """Return up to `spec.samples` points that have every key of the spec.

    Of more than twice the most that can be asked for, every second one is dropped on the way.
    """
    points: list[dict[str, Any]] = []
    stride, count = 1, 0
    async for body in _every_line(connection, run_id, spec):
        metrics = parse_line(body).metrics
        if not all(key in metrics for key in spec.keys):
            continue
        point = {key: metrics[key] for key in spec.keys} if spec.keys else metrics
        if count % stride and points:
            points[-1] = point  # the last one of all is always among them
        else:
            points.append(point)
        count += 1
        if len(points) > 2 * MAX_SAMPLES:
            points = points[1::2]
            stride *= 2
            count = 0
    return thin_out(points, min(spec.samples, MAX_SAMPLES))


def thin_out(points: list[dict[str, Any]], samples: int) -> list[dict[str, Any]]:
    """Return at most `samples` points, evenly spread, the last one among them."""
    if len(points) <= samples or samples < 1:
        return points[: max(samples, 0)]
    return [points[(index + 1) * len(points) // samples - 1] for index in range(samples)]


def parse_spec(text: str) -> Spec:
    """Read a sampled history's JSON; 400 when it is none."""
    try:
        return msgspec.json.decode(text, type=Spec)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(f"a history spec is {{keys, samples, minStep, maxStep}}: {error}") from error


async def _every_line(connection: AsyncConnection, run_id: int, spec: Spec) -> AsyncIterator[str]:
    statement = (
        select(run_history.c.line, run_history.c.body)
        .where(run_history.c.run_id == run_id, *_steps(spec.min_step, spec.end()))
        .order_by(run_history.c.line)
        .limit(BATCH_LINES)
    )
    after = -1
    while True:  # in batches, so that other requests get their turn
        rows = (await connection.execute(statement.where(run_history.c.line > after))).all()
        for _, body in rows:
            yield body
        if len(rows) < BATCH_LINES:
            return
        after = rows[-1].line


def _steps(min_step: int | None, max_step: int | None) -> list[ColumnElement[bool]]:
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
