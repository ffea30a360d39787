"""Connections to the database: many readers, and on SQLite one writer at a time.

async with store.write() as connection:   # BEGIN IMMEDIATE .. COMMIT, ROLLBACK on error

On PostgreSQL writers run side by side. What is read there to decide what to write is locked first:
a row that is there with FOR UPDATE, a name that may not be there yet with `hold`.
"""

import hashlib
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from launch_async.server.store.faults import told_apart
from launch_async.server.store.lane import Lane, T, Work
from launch_async.server.store.memory import Memory
from launch_async.server.store.migrate import migrate
from launch_async.server.store.postgres import is_postgres, open_postgres
from launch_async.server.store.postgres_direct import Direct
from launch_async.server.store.sqlite_driver import ThreadConnection
from launch_async.server.store.texts import storable_parameters
from launch_async.server.store.turns import Turn
from launch_async.server.store.unusable import check_url, unusable

READERS = 16
WRITERS = 8  # on PostgreSQL; SQLite has one
BUSY_MILLISECONDS = 15_000
BEGIN_OPTION = "launch_async_begin"
BEGIN = "BEGIN"
BEGIN_IMMEDIATE = "BEGIN IMMEDIATE"
IMMEDIATE = {BEGIN_OPTION: BEGIN_IMMEDIATE}
SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}  # spares the trips to begin and to end


class Runner(Protocol):
    """Runs short transactions that come often."""

    async def run(self, work: Work[T]) -> T:
        """Run `work` in a transaction of its own and return what it returns."""
        ...

    async def close(self) -> None:
        """Close what is its own."""
        ...


class Store:
    """One database, migrated to its newest schema."""

    def __init__(
        self,
        engine: AsyncEngine,
        writer: AsyncEngine,
        *,
        lookups: Runner,
        transacts: Runner,
        turn: Turn | None = None,
    ) -> None:
        self._engine, self._writer = engine, writer
        self._lookups, self._transacts = lookups, transacts
        # SQLite's busy wait is a poll without order; this serves writers as they come.
        self._turn: AbstractAsyncContextManager[None] = turn or nullcontext()
        self.memory: Memory[Any] = Memory()
        """What `lookup` found, as long as it holds: each `write` empties it."""
        self.dialect: str = engine.dialect.name

    @classmethod
    async def open(cls, url: str) -> "Store":
        """Bring the database's schema to its newest version and open it.

        Raises ConfigError when the database cannot be used.
        """
        check_url(url)
        try:
            if not is_postgres(url):
                await anyio.to_thread.run_sync(_open_file, url)
            await anyio.to_thread.run_sync(migrate, url)
        except (DBAPIError, sqlite3.Error, OSError, CommandError) as error:
            raise unusable(url, error) from error
        return cls.connect(url)

    @classmethod
    def connect(cls, url: str) -> "Store":
        """Open a database whose schema is the newest already."""
        if is_postgres(url):
            readers = open_engine(url)
            writers = open_engine(url, connections=WRITERS)
            return cls(
                readers.execution_options(**SNAPSHOT),
                writers,
                lookups=Direct(readers.execution_options(**AUTOCOMMIT), write=False),
                transacts=Direct(writers.execution_options(**AUTOCOMMIT), write=True),
            )
        # A connection of its own: however many readers there are, a run's words are written.
        writer = open_engine(url, connections=1)
        turn = Turn()
        return cls(
            open_engine(url),
            writer.execution_options(**IMMEDIATE),
            lookups=Lane(_open_lane(url), begin=BEGIN, keep=False, turn=Turn()),
            transacts=Lane(_open_lane(url), begin=BEGIN_IMMEDIATE, keep=True, turn=turn),
            turn=turn,
        )

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection that sees one consistent state; it is not for writing."""
        with anyio.CancelScope(shield=True), told_apart() as stage:
            async with self._engine.connect() as connection:
                stage.connected = True
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection in a transaction: committed on exit, rolled back on an error.

        Cancellation waits for its end: transactions are short, and a driver that is cancelled in
        the middle of a statement has its connection thrown away.
        """
        try:
            async with self._turn:
                with anyio.CancelScope(shield=True), told_apart() as stage:
                    async with self._writer.begin() as connection:
                        stage.connected = True
                        yield connection
                        stage.committing = True
        finally:
            self.memory.forget()

    async def lookup(self, work: Work[T]) -> T:
        """Do a short read that is asked for often; the work awaits nothing but its connection.

        On PostgreSQL each of its statements sees what is committed by then.
        """
        return await self._lookups.run(work)

    async def transact(self, work: Work[T]) -> T:
        """Do a short write that is asked for often; the work awaits nothing but its connection.

        As with `write`: kept when it returns, undone when it raises, seen to its end in any case.
        But the memory stays: nothing that is remembered may be changed here.
        """
        return await self._transacts.run(work)

    async def close(self) -> None:
        """Close every connection."""
        await self._lookups.close()
        await self._transacts.close()
        await self._engine.dispose()
        await self._writer.dispose()


def open_engine(url: str, *, connections: int = READERS, limited: bool = True) -> AsyncEngine:
    """Open an engine whose connections keep our rules; the caller disposes of it.

    Errors do not show parameters: there are keys among them. `limited`: no statement and no wait
    for a lock lasts long.
    """
    if is_postgres(url):
        engine = open_postgres(url, connections=connections, limited=limited)
    else:
        known = make_url(url).set(drivername="sqlite+aiosqlite")
        engine = create_async_engine(
            known,
            connect_args={"async_creator_fn": ThreadConnection, "isolation_level": None},
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    event.listen(engine.sync_engine, "before_cursor_execute", _send_text, retval=True)
    return engine


def insert(connection: AsyncConnection, table: Table) -> SqliteInsert | PostgresInsert:
    """Return an INSERT that takes `on_conflict_do_nothing` and `on_conflict_do_update`."""
    if connection.dialect.name == "sqlite":
        return sqlite_insert(table)
    return postgres_insert(table)


async def hold(connection: AsyncConnection, *name: str | int) -> None:
    """Let nobody else hold this name until the transaction ends, though no row may have it yet.

    On SQLite nobody else writes anyway.
    """
    if connection.dialect.name == "sqlite":
        return
    await connection.execute(select(func.pg_advisory_xact_lock(lock_number(*name))))


def lock_number(*name: str | int) -> int:
    """Return the number by which PostgreSQL's advisory locks know a name."""
    text = "\0".join(str(part) for part in name)
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _send_text(
    _connection: Connection, _cursor: Any, statement: str, parameters: Any, *_more: Any
) -> tuple[str, Any]:
    return statement, storable_parameters(parameters)


def _open_lane(url: str) -> Engine:
    plain = url.replace("sqlite+aiosqlite://", "sqlite://", 1)
    engine = create_engine(
        plain,
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
        # Used by the lane's thread, and closed by another one.
        connect_args={"check_same_thread": False, "isolation_level": None},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "before_cursor_execute", _send_text, retval=True)
    return engine


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    cursor = dbapi_connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        f"busy_timeout = {BUSY_MILLISECONDS}",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(BEGIN_OPTION, BEGIN))


def _open_file(url: str) -> None:
    """Make a SQLite file, or see that it is one.

    The asynchronous driver leaves a thread behind that it could not open a file for.
    """
    path = Path(make_url(url).database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA schema_version")
