"""PostgreSQL's driver by itself, for what comes many times a second.

Each round trip costs the processor more than the statement that it carries. So BEGIN is sent
before the first statement that needs a transaction, and COMMIT only after a BEGIN.
"""

from typing import Any, Protocol, TypeVar, cast

import anyio
from sqlalchemy import Result
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from launch_async.server.store.faults import Stage, told_apart
from launch_async.server.store.lane import Work
from launch_async.server.store.prepared import Statements

T = TypeVar("T")


class Driver(Protocol):
    """As much of asyncpg's connection as we use."""

    async def execute(self, query: str) -> str: ...
    async def fetch(self, query: str, *values: Any) -> list[Any]: ...
    def is_in_transaction(self) -> bool: ...
    def is_closed(self) -> bool: ...


class Direct:
    """Runs short transactions on an engine's connections, which are in AUTOCOMMIT."""

    def __init__(self, engine: AsyncEngine, *, write: bool) -> None:
        """`write`: in a transaction; else each statement is one by itself."""
        self._engine, self._write = engine, write
        self._statements = Statements(engine.dialect)
        adapted: Any = engine.dialect.dbapi
        asyncpg = adapted.asyncpg
        self._errors: tuple[type[Exception], ...] = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
        )

    async def run(self, work: Work[T]) -> T:
        """Run `work` in a transaction of its own and return what it returns."""
        with anyio.CancelScope(shield=True), told_apart() as stage:
            return await self._run(work, stage)
        raise AssertionError("nobody cancels this scope")

    async def close(self) -> None:
        """Close nothing: the engine is somebody else's."""

    async def _run(self, work: Work[T], stage: Stage) -> T:
        async with self._engine.connect() as connection:
            stage.connected = True
            direct = _Direct(connection, self._statements, write=self._write)
            try:
                result = await work(cast("AsyncConnection", direct))
                stage.committing = True
                await direct.commit()
                return result
            except TimeoutError:  # what it does now is not known
                await connection.invalidate()
                raise
            except self._errors as error:
                lost = direct.lost(error)
                if lost:
                    await connection.invalidate(error)
                else:
                    await self._undo(direct, connection)
                # Without the parameters, as there are keys among them.
                raise DBAPIError("a statement of the store", None, error, True, lost) from error
            except BaseException:
                await self._undo(direct, connection)
                raise

    async def _undo(self, direct: "_Direct", connection: AsyncConnection) -> None:
        """End what was not committed; where that fails, it ends with its connection."""
        try:
            await direct.undo()
        except self._errors as error:
            await connection.invalidate(error)


class _Direct:
    """As much of an AsyncConnection as our statements need."""

    def __init__(self, connection: AsyncConnection, statements: Statements, *, write: bool) -> None:
        self._connection, self._statements = connection, statements
        pooled: Any = connection.sync_connection
        self.driver: Driver = pooled.connection.driver_connection
        self.dialect = connection.dialect
        self._due = write

    async def execute(self, statement: Any, parameters: Any = None) -> Result[Any]:
        known = self._statements.find(statement, parameters)
        if self._due and not (known and known.alone):
            self._due = False
            await self.driver.execute("BEGIN")
        if known is None:
            result: Result[Any] = await self._connection.execute(statement, parameters)
            return result
        rows = await self.driver.fetch(known.sql, *known.bind(parameters or {}))
        return known.result(rows)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    def lost(self, error: Exception) -> bool:
        """Tell whether an error is the connection's end."""
        state: str | None = getattr(error, "sqlstate", None)
        if state is None:
            return not isinstance(error, ValueError)  # a value that the driver cannot send
        return self.driver.is_closed() or state.startswith(("08", "57P"))

    async def commit(self) -> None:
        if self.driver.is_in_transaction():
            await self.driver.execute("COMMIT")

    async def undo(self) -> None:
        """End what was not committed."""
        if not self.driver.is_closed() and self.driver.is_in_transaction():
            await self.driver.execute("ROLLBACK")
