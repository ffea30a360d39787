"""POST /files/{entity}/{project}/{run}/file_stream: what a run tells about itself as it goes.

    body -> parsed lines -> one short transaction

Offsets are line numbers, so a repeated request changes nothing: history and events only append,
console lines overwrite, and the last summary wins. A refusal is fatal to the run's data at the
client, so an unknown run is made rather than refused.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import Table, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.access import require_run_write
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.history import Line, merge_keys, parse_line
from launch_async.server.projects import ensure_project, resolve_entity
from launch_async.server.run_rows import RunRow, document_columns, load_run
from launch_async.server.runs import insert_run, set_run_state
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.runs import run_console, run_events, run_history, runs

HISTORY = "wandb-history.jsonl"
EVENTS = "wandb-events.jsonl"
SUMMARY = "wandb-summary.json"
CONSOLE = "output.log"
MAX_LINE = 2_000_000_000  # GraphQL counts lines in 32 bits


class Block(msgspec.Struct, frozen=True):
    """Lines of one file, the first at line `offset`."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_LINE)] = 0
    content: list[str] = []

    @property
    def end(self) -> int:
        """The line past the last."""
        return self.offset + len(self.content)


class Post(msgspec.Struct, frozen=True):
    """The body of one file_stream request; `{}` is a heartbeat."""

    files: dict[str, Block] | None = None
    uploaded: list[str] | None = None
    preempting: bool | None = None
    complete: bool | None = None
    exitcode: int | None = None

    def block(self, name: str) -> Block:
        """Return what came for one file."""
        return (self.files or {}).get(name, Block())

    def state(self) -> tuple[str, int | None]:
        """Return the state and exit code that the run has after this request."""
        if self.complete:
            code = _signed(self.exitcode or 0)
            return ("finished" if code == 0 else "failed"), code
        return ("preempting" if self.preempting else "running"), None


async def receive(
    request: Request, body: bytes, *, entity: str, project: str, run_name: str
) -> dict[str, Any]:
    """Take one request and return the reply; `stopped` makes the client stop its script."""
    post = _parse(body)
    lines = [parse_line(text) for text in post.block(HISTORY).content]
    async with request.store.write() as connection:
        run = await _run_of(connection, request, entity, project, run_name)
        await apply(connection, run, post, lines, now=request.now())
    return {"stopped": run.stop_requested and not run.ended, "exitcode": None, "limits": {}}


async def apply(
    connection: AsyncConnection, run: RunRow, post: Post, lines: Sequence[Line], *, now: datetime
) -> None:
    """Write what a request brought, and let the run's state follow."""
    values: dict[str, Any] = {"heartbeat_at": now}
    values |= await _append_history(connection, run, post.block(HISTORY), lines)
    values |= await _append_events(connection, run, post.block(EVENTS))
    values |= await _write_console(connection, run, post.block(CONSOLE))
    summary = post.block(SUMMARY).content
    if summary:
        with suppress(ValueError):  # what is no object cannot be read back
            values |= document_columns("summary", summary[-1])
    await connection.execute(update(runs).where(runs.c.id == run.id).values(**values))
    state, exit_code = post.state()
    if (state, exit_code) != (run.state, run.exit_code):
        await set_run_state(connection, run.id, state, exit_code=exit_code, now=now)


def _signed(code: int) -> int:
    """Return an exit code in 32 bits with a sign: Windows has such as 3221225477."""
    return (code + 2**31) % 2**32 - 2**31


def _parse(body: bytes) -> Post:
    if not body.strip():
        return Post()
    try:
        return msgspec.json.decode(body, type=Post)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the body is not a file_stream request: {error}") from error


async def _run_of(
    connection: AsyncConnection, request: Request, entity: str, project: str, run_name: str
) -> RunRow:
    owner = await resolve_entity(connection, request, entity)
    require_run_write(request.viewer, entity, project, run_name)
    place = await ensure_project(connection, owner.id, project, user_id=request.viewer.user_id)
    run = await load_run(connection, place, run_name, lock=True)
    if run is None:
        await insert_run(connection, request, place, run_name, {})
        run = await load_run(connection, place, run_name, lock=True)
    if run is None:
        raise ApiError("the run vanished while it was written", status=409)
    return run


async def _append_history(
    connection: AsyncConnection, run: RunRow, block: Block, lines: Sequence[Line]
) -> dict[str, Any]:
    known = max(0, run.history_lines - block.offset)  # what a retry repeats
    fresh = lines[known:]
    if not fresh:
        return {}
    first = block.offset + known
    rows = [
        {"run_id": run.id, "line": number, "step": line.step, "body": line.body}
        for number, line in enumerate(fresh, start=first)
    ]
    await connection.execute(insert(connection, run_history).on_conflict_do_nothing(), rows)
    steps = [line.step for line in fresh if line.step is not None]
    return {
        "history_lines": block.end,
        "last_step": max([run.last_step, *steps]),
        "history_keys": merge_keys(run.history_keys, fresh),
    }


async def _append_events(connection: AsyncConnection, run: RunRow, block: Block) -> dict[str, Any]:
    if not block.content or block.end <= run.event_lines:
        return {}
    rows = _rows(run, block)
    await connection.execute(insert(connection, run_events).on_conflict_do_nothing(), rows)
    return {"event_lines": block.end}


async def _write_console(connection: AsyncConnection, run: RunRow, block: Block) -> dict[str, Any]:
    if not block.content:
        return {}
    await _overwrite(connection, run_console, _rows(run, block))
    return {"console_lines": max(run.console_lines, block.end)}


async def _overwrite(connection: AsyncConnection, table: Table, rows: list[dict[str, Any]]) -> None:
    statement = insert(connection, table)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[table.c.run_id, table.c.line],
            set_={"body": statement.excluded.body},
        ),
        rows,
    )


def _rows(run: RunRow, block: Block) -> list[dict[str, Any]]:
    return [
        {"run_id": run.id, "line": number, "body": body}
        for number, body in enumerate(block.content, start=block.offset)
    ]
