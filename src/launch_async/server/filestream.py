"""POST /files/{entity}/{project}/{run}/file_stream: what a run tells about itself as it goes.

    body -> parsed lines -> one short transaction

Offsets are line numbers, so requests may be split, repeated and reordered: history and events only
append, each line once; console lines overwrite; the last summary wins. A refusal is fatal to the
run's data at the client, so an unknown run is made rather than refused, and a run whose key died
with it may tell its end again: the answer may have been lost.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Annotated, Any

import anyio.to_thread
import msgspec
from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.access import require_run_write
from launch_async.server.auth import REFUSAL
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.history import MAX_LINE, NO_KEYS, Line, merge_keys, parse_line
from launch_async.server.json_text import read_json
from launch_async.server.projects import ensure_project, resolve_entity
from launch_async.server.run_rows import TERMINAL_STATES, document_columns
from launch_async.server.runs import insert_run, set_run_state
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.runs import (
    projects,
    run_console,
    run_events,
    run_history,
    runs,
)

HISTORY = "wandb-history.jsonl"
EVENTS = "wandb-events.jsonl"
SUMMARY = "wandb-summary.json"
CONSOLE = "output.log"
PARSED_ASIDE_BYTES = 256 * 1024  # more than that is parsed in a thread
RECOUNTED_LINES = 10_000
INSERTS: dict[str, Any] = {"sqlite": sqlite_insert, "postgresql": postgres_insert}


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

    def state_after(self, run: "KnownRun") -> tuple[str, int | None]:
        """Return the state and exit code that a run has after this request.

        The client says once that it is being preempted; a bad end is then no failure of the run's.
        """
        preempting = self.preempting or run.state == "preempting"
        if self.complete:
            code = _signed(self.exitcode or 0)
            if code == 0:
                return "finished", code
            return ("preempted" if preempting or run.state == "preempted" else "failed"), code
        if run.state in TERMINAL_STATES and run.exit_code is not None and self._is_late(run):
            return run.state, run.exit_code
        return ("preempting" if preempting else "running"), None

    def repeats(self, run: "KnownRun") -> bool:
        """Tell whether this brings lines that only append, and ends before some that are known."""
        told = [
            block.end <= count
            for block, count in (
                (self.block(HISTORY), run.history_lines),
                (self.block(EVENTS), run.event_lines),
            )
            if block.content
        ]
        return bool(told) and all(told)

    def repeats_end(self, run: "KnownRun") -> bool:
        """Tell whether this is the end that the run has told already, with nothing new in it."""
        known = ((HISTORY, run.history_lines), (EVENTS, run.event_lines))
        return (
            bool(self.complete)
            and self.state_after(run) == (run.state, run.exit_code)
            and all(self.block(name).end <= count for name, count in known)
            and self.block(CONSOLE).end <= run.console_lines
        )

    def _is_late(self, run: "KnownRun") -> bool:
        """Tell whether this may have been sent before the run's end, and is no new life of it."""
        if self.block(HISTORY).content or self.block(EVENTS).content:
            return self.repeats(run)
        if self.block(CONSOLE).content:
            return self.block(CONSOLE).end <= run.console_lines
        return bool(self.uploaded) and not self.block(SUMMARY).content


class KnownRun(msgspec.Struct, frozen=True):
    """As much of a run as a request must know."""

    id: int
    state: str
    exit_code: int | None
    stop_requested: bool
    history_lines: int
    event_lines: int
    console_lines: int
    last_step: int
    history_keys: str


RUN_BY_NAMES = (  # put together once, as it is asked for by each request
    select(*(runs.c[name] for name in KnownRun.__struct_fields__))
    .join(projects, projects.c.id == runs.c.project_id)
    .join(entities, entities.c.id == projects.c.entity_id)
    .where(
        entities.c.name == bindparam("entity"),
        projects.c.name_folded == bindparam("project"),
        runs.c.name == bindparam("run"),
    )
)
KNOWN = often(RUN_BY_NAMES.with_for_update(of=runs, key_share=True))
SEEN = often(RUN_BY_NAMES, alone=True)
CHANGE = update(runs).where(runs.c.id == bindparam("run_id"))


async def receive(
    request: Request, body: bytes, *, entity: str, project: str, run_name: str
) -> dict[str, Any]:
    """Take one request and return the reply; `stopped` makes the client stop its script."""
    if len(body) > PARSED_ASIDE_BYTES:
        post, lines = await anyio.to_thread.run_sync(_read, body)
    else:
        post, lines = _read(body)

    if request.viewer.run is not None and request.viewer.run.ended:
        await _require_repeated_end(request, post, _names(entity, project, run_name))
        return _reply(stopped=False)

    async def write(connection: AsyncConnection) -> KnownRun:
        run = await _find(connection, request, entity, project, run_name)
        await apply(connection, run, post, lines, now=request.now())
        return run

    run = await request.store.transact(write)
    return _reply(stopped=run.stop_requested and run.state not in TERMINAL_STATES)


async def apply(
    connection: AsyncConnection, run: KnownRun, post: Post, lines: Sequence[Line], *, now: datetime
) -> None:
    """Write what a request brought, and let the run's state follow."""
    values: dict[str, Any] = {"heartbeat_at": now}
    values |= await _append_history(connection, run, post.block(HISTORY), lines)
    values |= await _append_events(connection, run, post.block(EVENTS))
    values |= await _write_console(connection, run, post.block(CONSOLE))
    summary = post.block(SUMMARY).content
    if summary and not post.repeats(run):  # else there was a later one
        with suppress(ValueError):  # what is no object cannot be read back
            values |= document_columns("summary", summary[-1])
    await connection.execute(CHANGE, {"run_id": run.id, **values})
    state, exit_code = post.state_after(run)
    if (state, exit_code) != (run.state, run.exit_code):
        await set_run_state(connection, run.id, state, exit_code=exit_code, now=now)


async def _require_repeated_end(request: Request, post: Post, names: dict[str, str]) -> None:
    """Raise a 401 unless a run, whose key is dead, tells the end again that it has told already."""

    async def repeated(connection: AsyncConnection) -> bool:
        row = (await connection.execute(SEEN, names)).one_or_none()
        return row is not None and post.repeats_end(KnownRun(*row))

    own = request.viewer.may_write_run(names["entity"], names["project"], names["run"])
    if not own or not await request.store.lookup(repeated):
        raise ApiError(REFUSAL, status=401)


def _names(entity: str, project: str, run_name: str) -> dict[str, str]:
    return {"entity": entity, "project": project.casefold(), "run": run_name}


def _reply(*, stopped: bool) -> dict[str, Any]:
    return {"stopped": stopped, "exitcode": None, "limits": {}}


def _signed(code: int) -> int:
    """Return an exit code in 32 bits with a sign: Windows has such as 3221225477."""
    return (code + 2**31) % 2**32 - 2**31


def _read(body: bytes) -> tuple[Post, list[Line]]:
    post = _parse(body)
    return post, [parse_line(text) for text in post.block(HISTORY).content]


def _parse(body: bytes) -> Post:
    if not body.strip():
        return Post()
    try:
        try:
            return msgspec.json.decode(body, type=Post)
        except (msgspec.ValidationError, RecursionError):
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            # What Python and Go let through, and bytes that are no UTF-8: better some than none.
            return msgspec.convert(read_json(body.decode(errors="replace")), Post)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the body is not a file_stream request: {error}") from error


async def _find(
    connection: AsyncConnection, request: Request, entity: str, project: str, run_name: str
) -> KnownRun:
    """Return the run, made when it is missing; nobody else changes it until the end."""
    require_run_write(request.viewer, entity, project, run_name)
    names = _names(entity, project, run_name)
    row = (await connection.execute(KNOWN, names)).one_or_none()
    if row is None:
        owner = await resolve_entity(connection, request, entity)
        place = await ensure_project(connection, owner.id, project, user_id=request.viewer.user_id)
        await insert_run(connection, request, place, run_name, {})
        row = (await connection.execute(KNOWN, names)).one_or_none()
    if row is None:
        raise ApiError("the run vanished while it was written", status=409)
    return KnownRun(*row)


async def _append_history(
    connection: AsyncConnection, run: KnownRun, block: Block, lines: Sequence[Line]
) -> dict[str, Any]:
    in_turn = block.offset >= run.history_lines
    known = set() if in_turn else await _known_lines(connection, run, block)
    fresh = [pair for pair in enumerate(lines, block.offset) if pair[0] not in known]
    if not fresh:
        return {}
    rows = [
        {"run_id": run.id, "line": number, "step": line.step, "body": line.body}
        for number, line in fresh
    ]
    await connection.execute(_once(connection.dialect.name, run_history), rows)
    keys = run.history_keys
    added = [line for _, line in fresh]
    if not in_turn and run.history_lines <= RECOUNTED_LINES:
        keys, added = NO_KEYS, await _all_lines(connection, run)  # some came before their turn
    steps = [line.step for _, line in fresh if line.step is not None]
    return {
        "history_lines": max(run.history_lines, block.end),
        "last_step": max([run.last_step, *steps]),
        "history_keys": merge_keys(keys, added),
    }


async def _known_lines(connection: AsyncConnection, run: KnownRun, block: Block) -> set[int]:
    rows = await connection.execute(
        select(run_history.c.line).where(
            run_history.c.run_id == run.id,
            run_history.c.line >= block.offset,
            run_history.c.line < block.end,
        )
    )
    return set(rows.scalars())


async def _all_lines(connection: AsyncConnection, run: KnownRun) -> list[Line]:
    rows = await connection.execute(
        select(run_history.c.body)
        .where(run_history.c.run_id == run.id)
        .order_by(run_history.c.line)
    )
    return [parse_line(body) for body in rows.scalars()]


async def _append_events(
    connection: AsyncConnection, run: KnownRun, block: Block
) -> dict[str, Any]:
    if not block.content:
        return {}
    rows = _rows(run, block)
    await connection.execute(_once(connection.dialect.name, run_events), rows)
    return {"event_lines": max(run.event_lines, block.end)}


async def _write_console(
    connection: AsyncConnection, run: KnownRun, block: Block
) -> dict[str, Any]:
    if not block.content:
        return {}
    await connection.execute(_over(connection.dialect.name, run_console), _rows(run, block))
    return {"console_lines": max(run.console_lines, block.end)}


def _rows(run: KnownRun, block: Block) -> list[dict[str, Any]]:
    return [
        {"run_id": run.id, "line": number, "body": body}
        for number, body in enumerate(block.content, start=block.offset)
    ]


@cache
def _once(dialect: str, table: Table) -> Any:
    """Return an INSERT of lines that leaves those which are there."""
    return INSERTS[dialect](table).on_conflict_do_nothing()


@cache
def _over(dialect: str, table: Table) -> Any:
    """Return an INSERT of lines that overwrites those which are there."""
    statement = INSERTS[dialect](table)
    return statement.on_conflict_do_update(
        index_elements=[table.c.run_id, table.c.line],
        set_={"body": statement.excluded.body},
    )
