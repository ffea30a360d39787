"""Runs as they are read from the database."""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.json_text import plain_copy
from launch_async.server.projects import ProjectRow
from launch_async.server.store.engine import hold, lock_number
from launch_async.server.store.tables.people import users
from launch_async.server.store.tables.runs import runs

TERMINAL_STATES = frozenset({"finished", "failed", "crashed", "killed", "preempted"})
RUN_STATES = TERMINAL_STATES | {"running", "pending", "preempting"}

USER_COLUMNS = ("username", "name", "email", "admin")


class UserRow(msgspec.Struct, frozen=True):
    """A user, as others may see them."""

    id: int
    username: str
    name: str
    email: str | None
    admin: bool


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run with its project and the user who made it."""

    id: int
    project: ProjectRow
    user: UserRow | None
    name: str
    display_name: str
    description: str | None
    notes: str | None
    group_name: str | None
    job_type: str | None
    sweep_name: str | None
    host: str | None
    program: str | None
    repo: str | None
    git_commit: str | None
    tags: str
    config: str
    summary: str
    state: str
    exit_code: int | None
    stop_requested: bool
    created_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    history_lines: int
    event_lines: int
    console_lines: int
    last_step: int
    history_keys: str

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected of the run."""
        return self.state in TERMINAL_STATES

    @property
    def duration(self) -> float:
        """Seconds from the start to the end, or to the last word so far."""
        return ((self.finished_at or self.heartbeat_at) - self.created_at).total_seconds()


RUN_COLUMNS = tuple(name for name in RunRow.__struct_fields__ if name not in {"project", "user"})


def document_columns(column: str, text: str) -> dict[str, str | None]:
    """Return what is stored of a run's `config` or `summary`; ValueError unless a JSON object."""
    return {column: text, f"{column}_plain": plain_copy(text)}


async def hold_run(
    connection: AsyncConnection, *, entity: str, project: str, run_name: str
) -> None:
    """Let nobody else make this run, or claim an item for it, until the transaction ends."""
    await hold(connection, "run", entity, project.casefold(), run_name)


def run_lock(*, entity: str, project: str, run_name: str) -> int:
    """Return the number of the lock that `hold_run` takes on PostgreSQL."""
    return lock_number("run", entity, project.casefold(), run_name)


def run_select() -> Select[Any]:
    """Return a SELECT whose rows `run_of` understands."""
    own = [runs.c[name] for name in RUN_COLUMNS]
    user = [users.c[name].label(f"user_{name}") for name in USER_COLUMNS]
    return select(*own, runs.c.user_id, *user).join(
        users, users.c.id == runs.c.user_id, isouter=True
    )


def run_of(row: Any, project: ProjectRow) -> RunRow:
    """Return the run of one row of `run_select`."""
    user = None
    if row.user_username is not None:
        user = UserRow(row.user_id, *(getattr(row, f"user_{name}") for name in USER_COLUMNS))
    return RunRow(project=project, user=user, **{name: getattr(row, name) for name in RUN_COLUMNS})


async def load_run(
    connection: AsyncConnection, project: ProjectRow, run_name: str, *, lock: bool = False
) -> RunRow | None:
    """Return the run of a project by name, None when there is none.

    With `lock`, nobody else changes it until the transaction ends.
    """
    statement = run_select().where(runs.c.project_id == project.id, runs.c.name == run_name)
    if lock:
        statement = statement.with_for_update(of=runs, key_share=True)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else run_of(row, project)
