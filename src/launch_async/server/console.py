"""Console lines of runs. The client writes them as plain text or, when told it may, as JSON:

2026-11-22T14:51:36.686115 text     ERROR 2026-11-22T14:51:36.731949 text
{"ts": "2026-...", "level": "error", "content": "text", "label": "..."}
"""

import re

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.store.tables.runs import run_console

PLAIN = re.compile(r"(?P<error>ERROR )?(?P<timestamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?) ")


class ConsoleLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a run's console."""

    number: int
    timestamp: str | None
    level: str
    label: str
    line: str


class _Structured(msgspec.Struct, frozen=True):
    content: str
    ts: str | None = None
    level: str = "info"
    label: str = ""


def parse_console(number: int, body: str) -> ConsoleLine:
    """Split a line as it was written into its parts; text without a time stays whole."""
    if body.startswith("{"):
        try:
            parts = msgspec.json.decode(body, type=_Structured)
        except msgspec.DecodeError:
            pass
        else:
            return ConsoleLine(
                number=number,
                timestamp=parts.ts,
                level=parts.level,
                label=parts.label,
                line=parts.content,
            )
    match = PLAIN.match(body)
    if match is None:
        return ConsoleLine(number=number, timestamp=None, level="info", label="", line=body)
    return ConsoleLine(
        number=number,
        timestamp=match["timestamp"],
        level="error" if match["error"] else "info",
        label="",
        line=body[match.end() :],
    )


async def read_page(
    connection: AsyncConnection, run_id: int, *, after: int, limit: int
) -> list[ConsoleLine]:
    """Return lines past number `after`, oldest first."""
    rows = await connection.execute(
        select(run_console.c.line, run_console.c.body)
        .where(run_console.c.run_id == run_id, run_console.c.line > after)
        .order_by(run_console.c.line)
        .limit(limit)
    )
    return [parse_console(number, body) for number, body in rows]


async def read_tail(connection: AsyncConnection, run_id: int, *, last: int) -> list[ConsoleLine]:
    """Return the newest `last` lines, oldest first."""
    rows = await connection.execute(
        select(run_console.c.line, run_console.c.body)
        .where(run_console.c.run_id == run_id)
        .order_by(run_console.c.line.desc())
        .limit(last)
    )
    return [parse_console(number, body) for number, body in reversed(rows.all())]
