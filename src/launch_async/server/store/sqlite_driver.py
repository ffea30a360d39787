"""SQLite for SQLAlchemy's aiosqlite dialect: one trip to the connection's thread per statement.

A trip between threads costs many times what a small statement does, and aiosqlite makes four per
statement (cursor, execute, fetch, close) and two per BEGIN. Here a statement travels once with all
that belongs to it, BEGIN rides along with the first statement, and nobody waits for a ROLLBACK.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, Self

Task = Callable[[sqlite3.Connection], Any]
Sent = tuple[asyncio.Future[Any] | None, Task | None]

CLOSED = "connection closed"  # the words by which the dialect knows a connection that is gone


class ThreadConnection:
    """One sqlite3 connection in a thread of its own; what is sent to it runs in order."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._arguments, self._options = arguments, options
        self._sent: SimpleQueue[Sent] = SimpleQueue()
        self._thread = Thread(target=self._work, name="sqlite", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._begin: str | None = None
        self._connection: sqlite3.Connection | None = None

    def __await__(self) -> Generator[Any, None, Self]:
        """Open the connection."""
        return self._open().__await__()

    async def _open(self) -> Self:
        self._thread.start()
        try:
            await self.send(_nothing)
        except BaseException:
            self.stop()
            raise
        return self

    def send(self, task: Task) -> Awaitable[Any]:
        """Run a task in the connection's thread; BEGIN first, when one was asked for."""
        if not self._thread.is_alive():
            raise ValueError(CLOSED)
        begin, self._begin = self._begin, None
        future: asyncio.Future[Any] = self._loop.create_future()
        self._sent.put((future, task if begin is None else _after(begin, task)))
        return future

    def begin(self, statement: str) -> None:
        """Begin a transaction with the next task."""
        self._begin = statement

    def cursor(self) -> "ThreadCursor":
        """Return a cursor; it costs nothing until it executes."""
        return ThreadCursor(self)

    async def commit(self) -> None:
        """End the transaction; one that did nothing never began."""
        if self._begin is not None:
            self._begin = None
            return
        await self.send(sqlite3.Connection.commit)

    async def rollback(self) -> None:
        """Undo the transaction; what is sent next comes after it, so that nobody need wait."""
        if self._begin is not None:
            self._begin = None
        elif self._thread.is_alive():
            self._sent.put((None, sqlite3.Connection.rollback))

    async def create_function(self, *arguments: Any, **options: Any) -> None:
        """Give SQL a function."""
        await self.send(lambda connection: connection.create_function(*arguments, **options))

    async def close(self) -> None:
        """Close the connection and end its thread. Twice does no harm."""
        if self._thread.is_alive():
            future: asyncio.Future[Any] = self._loop.create_future()
            self._sent.put((future, None))
            await future

    def stop(self) -> None:
        """End the thread without waiting for it."""
        self._sent.put((None, None))

    def _work(self) -> None:
        """Run what is sent, until None is."""
        while True:
            future, task = self._sent.get()
            try:
                if task is None:
                    if self._connection is not None:
                        self._connection.close()
                    result = None
                else:
                    if self._connection is None:
                        self._connection = sqlite3.connect(*self._arguments, **self._options)
                    result = task(self._connection)
            except BaseException as error:  # noqa: BLE001 - the asker raises it
                self._answer(future, error=error)
            else:
                self._answer(future, result=result)
            if task is None:
                return

    def _answer(
        self,
        future: asyncio.Future[Any] | None,
        *,
        result: Any = None,
        error: BaseException | None = None,
    ) -> None:
        if future is None or self._loop.is_closed():
            return

        def tell() -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._loop.call_soon_threadsafe(tell)


class ThreadCursor:
    """What a statement brought back, all of it."""

    def __init__(self, connection: ThreadConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        """Execute a statement and fetch its rows; a BEGIN waits for the next one."""
        if statement.startswith("BEGIN"):
            self._connection.begin(statement)
            return self

        def task(connection: sqlite3.Connection) -> Any:
            cursor = connection.execute(statement, parameters)
            rows = cursor.fetchall() if cursor.description else []
            return rows, cursor.description, cursor.rowcount, cursor.lastrowid

        done = await self._connection.send(task)
        self._rows, self.description, self.rowcount, self.lastrowid = done
        return self

    async def executemany(self, statement: str, parameters: Sequence[Any]) -> Self:
        """Execute a statement once for each set of parameters."""

        def task(connection: sqlite3.Connection) -> Any:
            cursor = connection.executemany(statement, parameters)
            return cursor.rowcount, cursor.lastrowid

        self.rowcount, self.lastrowid = await self._connection.send(task)
        return self

    async def fetchall(self) -> list[Any]:
        """Return the rows."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Nothing is open."""


def _nothing(_connection: sqlite3.Connection) -> None:
    """Open the connection, and no more."""


def _after(begin: str, task: Task) -> Task:
    def both(connection: sqlite3.Connection) -> Any:
        connection.execute(begin)
        return task(connection)

    return both
