"""A lane to SQLite: transactions that wait together make one trip to a thread, in their order.

    requests --work--> [ w w w w ] --one trip--> BEGIN w COMMIT, BEGIN w COMMIT, … --> answers

On SQLite the statements are cheap and the trips between threads are not. So a short transaction is
a function of its connection, and a whole batch of them is run by the lane's thread.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Dialect, Engine, Result
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.store.faults import told_apart
from launch_async.server.store.prepared import Statements
from launch_async.server.store.turns import Turn

T = TypeVar("T")
Work = Callable[[AsyncConnection], Coroutine[Any, Any, T]]
"""A transaction's body. It awaits nothing but its connection."""

MAX_BATCH = 64  # bounds how long a batch keeps others from the database
CLOSED = "the database is closed"


class Lane:
    """One connection, in a thread of its own, on which short transactions run one by one."""

    def __init__(self, engine: Engine, *, begin: str, keep: bool, turn: Turn) -> None:
        """`keep`: commit what the work wrote, else undo it. `turn`: who else must not run now."""
        self._engine, self._begin, self._keep = engine, begin, keep
        self._turn = turn
        self._waiting: deque[_Job[Any]] = deque()
        self._asked = False
        self._sent: SimpleQueue[tuple[asyncio.AbstractEventLoop, list[_Job[Any]]] | None] = (
            SimpleQueue()
        )
        self._thread: Thread | None = None
        self._closed = False

    async def run(self, work: Work[T]) -> T:
        """Run `work` in a transaction of its own and return what it returns.

        Whoever is cancelled meanwhile learns no more of it; it is seen to its end.
        """
        if self._closed:
            raise RuntimeError(CLOSED)
        job: _Job[T] = _Job(work, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._ask()
        with told_apart():
            answer: T = await job.future
        return answer

    async def close(self) -> None:
        """Close the connection, once all that was asked for is done."""
        self._closed = True
        async with self._turn:
            pass
        while self._waiting:
            async with self._turn:
                pass
        if self._thread is not None:
            self._sent.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._engine.dispose()

    def _ask(self) -> None:
        if self._waiting and not self._asked:
            self._asked = True
            self._turn.ask(self._send)

    def _send(self) -> bool:
        """Begin a batch; False without a thread: then all that waits is refused."""
        try:
            self._start()
        except RuntimeError as error:  # the machine gives no more threads
            while self._waiting:
                refused = self._waiting.popleft()
                refused.error = error
                refused.tell()
            self._asked = False
            return False
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        self._sent.put((asyncio.get_running_loop(), batch))
        return True

    def _start(self) -> None:
        if self._thread is None:
            thread = Thread(target=self._work, name="sqlite lane", daemon=True)
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        """Run the batches that are sent, until None is."""
        direct: _Direct | None = None
        while (sent := self._sent.get()) is not None:
            loop, batch = sent
            for job in batch:
                try:
                    direct = direct or _Direct(self._engine, self._begin)
                    job.result = direct.transact(job.work, keep=self._keep)
                except BaseException as error:  # noqa: BLE001 - raised where it was asked for
                    job.error = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._tell, batch)
        if direct is not None:
            direct.close()

    def _tell(self, batch: "list[_Job[Any]]") -> None:
        for job in batch:
            job.tell()
        self._asked = False
        self._turn.end()
        self._ask()


class _Job(Generic[T]):
    def __init__(self, work: Work[T], future: asyncio.Future[T]) -> None:
        self.work, self.future = work, future
        self.result: T | None = None
        self.error: BaseException | None = None

    def tell(self) -> None:
        if self.future.done():  # whoever asked was cancelled
            return
        if self.error is None:
            self.future.set_result(cast("T", self.result))
        else:
            self.future.set_exception(self.error)


class _Direct:
    """As much of an AsyncConnection as our statements need; its awaits never wait."""

    def __init__(self, engine: Engine, begin: str) -> None:
        self._begin = begin
        self._connection = engine.connect()
        self._driver = cast("sqlite3.Connection", self._connection.connection.driver_connection)
        self._statements = Statements(engine.dialect)
        self.dialect: Dialect = engine.dialect

    def transact(self, work: Work[T], *, keep: bool) -> T:
        try:
            self._driver.execute(self._begin)
            result = drive(work(cast("AsyncConnection", self)))
            if keep:
                self._driver.commit()
        except sqlite3.Error as error:
            raise DBAPIError.instance(
                None, None, error, sqlite3.Error, hide_parameters=True, dialect=self.dialect
            ) from error
        finally:
            self._connection.rollback()  # for SQLAlchemy, and what was not kept
            if self._driver.in_transaction:
                self._driver.rollback()
        return result

    async def execute(self, statement: Any, parameters: Any = None) -> Result[Any]:
        known = self._statements.find(statement, parameters)
        if known is None:
            return self._connection.execute(statement, parameters)
        cursor = self._driver.execute(known.sql, known.bind(parameters or {}))
        return known.result(cursor.fetchall())

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    def close(self) -> None:
        self._connection.close()


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits to its end."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    work.close()
    raise TypeError("a transaction in a lane awaits nothing but its connection")
