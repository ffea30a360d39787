"""Samples of a run's lines: a few of them, spread evenly, however many there are.

lines that may have the keys, by number -> every n-th of them -> those that have the keys
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Table, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.history import MAX_LINE, between, parse_line
from launch_async.server.store.tables.runs import run_history

BATCH_LINES = 1000
DEFAULT_SAMPLES = 500
MAX_SAMPLES = 10_000
MAX_SPECS = 100
SPARE = 2  # lines that are read for each point that is asked for, as some may lack a key
ESCAPED = frozenset('"\\<>&')
"""Signs that the client's JSON writers may write otherwise than they are."""

Point = dict[str, Any]


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


def parse_spec(text: str) -> Spec:
    """Read a sampled history's JSON; 400 when it is none."""
    try:
        return msgspec.json.decode(text, type=Spec)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(f"a history spec is {{keys, samples, minStep, maxStep}}: {error}") from error


async def evenly(
    connection: AsyncConnection, table: Table, run_id: int, *, samples: int
) -> list[str]:
    """Return about `samples` lines spread over the whole run, the last one among them."""
    ends = select(func.min(table.c.line), func.max(table.c.line))
    first, last = (await connection.execute(ends.where(table.c.run_id == run_id))).one()
    if last is None:
        return []
    stride = max(1, -(-(last + 1 - first) // max(1, min(samples, MAX_SAMPLES))))
    wanted = (last - table.c.line) % stride == 0
    rows = await connection.execute(
        select(table.c.body).where(table.c.run_id == run_id, wanted).order_by(table.c.line)
    )
    return list(rows.scalars())


async def sampled(connection: AsyncConnection, run_id: int, spec: Spec) -> list[Point]:
    """Return at most `spec.samples` points that have every key of the spec."""
    samples = min(spec.samples, MAX_SAMPLES)
    if samples < 1:
        return []
    where = [
        run_history.c.run_id == run_id,
        *between(spec.min_step, spec.end()),
        *_mentions(spec.keys, sqlite=connection.dialect.name == "sqlite"),
    ]
    bodies, total = await _every_nth(connection, where, SPARE * samples)
    points = [point for body in bodies if (point := _point(body, spec)) is not None]
    if len(bodies) < total and len(points) < min(samples, len(bodies)):
        # Most of these lines have the keys as words in other places only.
        points = await _scanned(connection, run_id, spec)
    return thin_out(points, samples)


def thin_out(points: list[Point], samples: int) -> list[Point]:
    """Return at most `samples` points, evenly spread, the last one among them."""
    if len(points) <= samples or samples < 1:
        return points[: max(samples, 0)]
    return [points[(index + 1) * len(points) // samples - 1] for index in range(samples)]


def _mentions(keys: list[str], *, sqlite: bool) -> list[ColumnElement[bool]]:
    """Return conditions that each line with these keys meets, and some others may meet."""
    find = func.instr if sqlite else func.strpos
    texts = {f'{key.rpartition(".")[2]}"' for key in keys if key.isascii() and key.isprintable()}
    return [find(run_history.c.body, text) > 0 for text in texts if ESCAPED.isdisjoint(text[:-1])]


async def _every_nth(
    connection: AsyncConnection, where: list[ColumnElement[bool]], wanted: int
) -> tuple[list[str], int]:
    """Return at most `wanted` of the lines, the last one among them, and how many lines there are.

    They are numbered without their text, which is read of the chosen ones only.
    """
    numbered = (
        select(
            run_history.c.run_id,
            run_history.c.line,
            func.row_number().over(order_by=run_history.c.line).label("nth"),
            func.count().over().label("total"),
        )
        .where(*where)
        .subquery()
    )
    stride = (numbered.c.total + wanted - 1) // wanted
    chosen = and_(
        run_history.c.run_id == numbered.c.run_id,
        run_history.c.line == numbered.c.line,
        (numbered.c.total - numbered.c.nth) % stride == 0,
    )
    rows = await connection.execute(
        select(run_history.c.body, numbered.c.total)
        .select_from(numbered)
        .join(run_history, chosen)
        .order_by(run_history.c.line)
    )
    found = rows.all()
    return [body for body, _ in found], found[0].total if found else 0


async def _scanned(connection: AsyncConnection, run_id: int, spec: Spec) -> list[Point]:
    """Return points of all lines that have the keys.

    Of more than twice the most that can be asked for, every second one is dropped on the way.
    """
    points: list[Point] = []
    stride, count = 1, 0
    async for body in _every_line(connection, run_id, spec):
        point = _point(body, spec)
        if point is None:
            continue
        if count % stride and points:
            points[-1] = point  # the last one of all is always among them
        else:
            points.append(point)
        count += 1
        if len(points) > 2 * MAX_SAMPLES:
            points = points[1::2]
            stride *= 2
            count = 0
    return points


def _point(body: str, spec: Spec) -> Point | None:
    metrics = parse_line(body).metrics
    if not all(key in metrics for key in spec.keys):
        return None
    return {key: metrics[key] for key in spec.keys} if spec.keys else metrics


async def _every_line(connection: AsyncConnection, run_id: int, spec: Spec) -> AsyncIterator[str]:
    statement = (
        select(run_history.c.line, run_history.c.body)
        .where(run_history.c.run_id == run_id, *between(spec.min_step, spec.end()))
        .order_by(run_history.c.line)
        .limit(BATCH_LINES)
    )
    after = -MAX_LINE
    while True:  # in batches, so that other requests get their turn
        rows = (await connection.execute(statement.where(run_history.c.line > after))).all()
        for _, body in rows:
            yield body
        if len(rows) < BATCH_LINES:
            return
        after = rows[-1].line
