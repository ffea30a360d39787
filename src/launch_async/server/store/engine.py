"""Connections to the database: many readers, and on SQLite one writer at a time.

async with store.write() as connection:   # BEGIN IMMEDIATE .. COMMIT, ROLLBACK on error
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Table, event
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from launch_async.server.store.migrate import migrate

READERS = 16
BUSY_MILLISECONDS = 15_000
BEGIN_OPTION = "launch_async_begin"


class Store:
    """One database, migrated to its newest schema."""

    def __init__(self, engine: AsyncEngine, writer: AsyncEngine) -> None:
        self._engine = engine
        self._writer = writer
        self._turn = anyio.Lock()
        self.dialect: str = engine.dialect.name

    @classmethod
    async def open(cls, url: str) -> "Store":
        """Bring the database's schema to its newest version and open it."""
        _make_folder(url)
        await anyio.to_thread.run_sync(migrate, url)
        return cls.connect(url)

    @classmethod
    def connect(cls, url: str) -> "Store":
        """Open a database whose schema is the newest already."""
        readers = open_engine(url)
        if readers.dialect.name != "sqlite":
            return cls(readers, readers)
        # A connection of its own: however many readers there are, a run's words are written.
        writer = open_engine(url, connections=1)
        return cls(readers, writer.execution_options(**{BEGIN_OPTION: "BEGIN IMMEDIATE"}))

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection that sees one consistent state; what it writes is undone."""
        with anyio.CancelScope(shield=True):
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection in a transaction: committed on exit, rolled back on an error.

        Cancellation waits for its end: transactions are short, and a driver that is cancelled in
        the middle of a statement has its connection thrown away.
        """
        async with self._own_turn():
            with anyio.CancelScope(shield=True):
                async with self._writer.begin() as connection:
                    yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        await self._writer.dispose()

    def _own_turn(self) -> AbstractAsyncContextManager[Any]:
        # SQLite's busy wait is a poll without order; a lock serves writers as they come.
        return self._turn if self.dialect == "sqlite" else nullcontext()


def open_engine(url: str, *, connections: int = READERS) -> AsyncEngine:
    """Open an engine whose SQLite connections keep our rules; the caller disposes of it.

    Errors do not show parameters: there are keys among them.
    """
    if make_url(url).get_backend_name() != "sqlite":
        return create_async_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_async_engine(url, pool_size=connections, max_overflow=0, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def insert(connection: AsyncConnection, table: Table) -> SqliteInsert | PostgresInsert:
    """Return an INSERT that takes `on_conflict_do_nothing` and `on_conflict_do_update`."""
    if connection.dialect.name == "sqlite":
        return sqlite_insert(table)
    return postgres_insert(table)


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # we begin; the driver would begin too late
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


def _make_folder(url: str) -> None:
    database = make_url(url).database
    if url.startswith("sqlite") and database and database != ":memory:":
        Path(database).parent.mkdir(parents=True, exist_ok=True)
