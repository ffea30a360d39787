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
from typing import Any

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
from launch_async.server.store.migrate import migrate
from launch_async.server.store.postgres import is_postgres, open_postgres
from launch_async.server.store.sqlite_driver import ThreadConnection
from launch_async.server.store.unusable import check_url, unusable

READERS = 16
WRITERS = 8  # on PostgreSQL; SQLite has one
BUSY_MILLISECONDS = 15_000
BEGIN_OPTION = "launch_async_begin"
IMMEDIATE = {BEGIN_OPTION: "BEGIN IMMEDIATE"}
SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
GLANCE = {"isolation_level": "AUTOCOMMIT"}  # spares the trips to begin and to end


class Store:
    """One database, migrated to its newest schema."""

    def __init__(
        self,
        engine: AsyncEngine,
        writer: AsyncEngine,
        *,
        glances: AsyncEngine | None = None,
        lanes: tuple[Engine, Engine] | None = None,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._glances = glances or engine
        self._turn = anyio.Lock()
        self._reads = self._writes = None
        if lanes is not None:
            self._reads = Lane(lanes[0], keep=False, turn=anyio.Lock())
            self._writes = Lane(lanes[1], keep=True, turn=self._turn)
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
            return cls(
                readers.execution_options(**SNAPSHOT),
                open_engine(url, connections=WRITERS),
                glances=readers.execution_options(**GLANCE),
            )
        # A connection of its own: however many readers there are, a run's words are written.
        writer = open_engine(url, connections=1)
        return cls(
            open_engine(url),
            writer.execution_options(**IMMEDIATE),
            lanes=(_open_lane(url), _open_lane(url).execution_options(**IMMEDIATE)),
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
        async with self._own_turn():
            with anyio.CancelScope(shield=True), told_apart() as stage:
                async with self._writer.begin() as connection:
                    stage.connected = True
                    yield connection
                    stage.committing = True

    async def lookup(self, work: Work[T]) -> T:
        """Do a short read that is asked for often; the work awaits nothing but its connection.

        On PostgreSQL each of its statements sees what is committed by then.
        """
        with anyio.CancelScope(shield=True), told_apart():
            if self._reads is not None:
                return await self._reads.run(work)
            async with self._glances.connect() as connection:
                return await work(connection)
        raise AssertionError("nobody cancels this scope")

    async def transact(self, work: Work[T]) -> T:
        """Do a short write that is asked for often; the work awaits nothing but its connection.

        As with `write`: kept when it returns, undone when it raises, seen to its end in any case.
        """
        if self._writes is None:
            async with self.write() as connection:
                return await work(connection)
        with told_apart():
            return await self._writes.run(work)

    async def close(self) -> None:
        """Close every connection."""
        for lane in (self._reads, self._writes):
            if lane is not None:
                await lane.close()
        await self._engine.dispose()
        await self._writer.dispose()

    def _own_turn(self) -> AbstractAsyncContextManager[Any]:
        # SQLite's busy wait is a poll without order; a lock serves writers as they come.
        return self._turn if self.dialect == "sqlite" else nullcontext()


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
    text = "\0".join(str(part) for part in name)
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
    number = int.from_bytes(digest, "big", signed=True)
    await connection.execute(select(func.pg_advisory_xact_lock(number)))


def storable(text: str) -> str:
    """Return text as both databases can hold it: without NUL and without halves of surrogates.

    A refusal would be fatal to the run whose console brought them.
    """
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _send_text(
    _connection: Connection, _cursor: Any, statement: str, parameters: Any, *_more: Any
) -> tuple[str, Any]:
    return statement, _storable(parameters)


def _storable(parameters: Any) -> Any:
    match parameters:
        case str():
            return storable(parameters)
        case tuple():
            return tuple(_storable(each) for each in parameters)
        case list():
            return [_storable(each) for each in parameters]
        case dict():
            return {name: _storable(each) for name, each in parameters.items()}
        case _:
            return parameters


def _open_lane(url: str) -> Engine:
    plain = url.replace("sqlite+aiosqlite://", "sqlite://", 1)
    engine = create_engine(
        plain,
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
        # Whichever thread is sent uses the connection, one at a time.
        connect_args={"check_same_thread": False, "isolation_level": None},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
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
    connection.exec_driver_sql(connection.get_execution_options().get(BEGIN_OPTION, "BEGIN"))


def _open_file(url: str) -> None:
    """Make a SQLite file, or see that it is one.

    The asynchronous driver leaves a thread behind that it could not open a file for.
    """
    path = Path(make_url(url).database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA schema_version")
