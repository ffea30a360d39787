"""A lane to SQLite: transactions that wait together make one trip to a thread, in their order.

    requests --work--> [ w w w w ] --one trip--> BEGIN w COMMIT, BEGIN w COMMIT, … --> answers

On SQLite the statements are cheap and the trips between threads are not. So a short transaction is
a function of its connection, and a whole batch of them is run by the thread that is sent for it.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

import anyio
import anyio.to_thread
from sqlalchemy import Connection, CursorResult, Dialect, Engine
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
Work = Callable[[AsyncConnection], Coroutine[Any, Any, T]]
"""A transaction's body. It awaits nothing but its connection."""

MAX_BATCH = 64  # bounds how long a batch keeps others from the database


class Lane:
    """One connection on which short transactions run one after the other."""

    def __init__(self, engine: Engine, *, keep: bool, turn: anyio.Lock) -> None:
        """`keep`: commit what the work wrote, else undo it. `turn`: who else must not run now."""
        self._engine = engine
        self._keep = keep
        self._turn = turn
        self._waiting: deque[_Job[Any]] = deque()
        self._connection: Connection | None = None

    async def run(self, work: Work[T]) -> T:
        """Run `work` in a transaction of its own and return what it returns."""
        job = _Job(work)
        self._waiting.append(job)
        with anyio.CancelScope(shield=True):  # short, and seen to its end
            while not job.over:  # else a trip of somebody before us took it along
                async with self._turn:
                    await self._trip()
        return job.answer()

    async def close(self) -> None:
        """Close the connection."""
        async with self._turn:
            if self._connection is not None:
                self._connection.close()
            self._engine.dispose()

    async def _trip(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        if batch:
            await anyio.to_thread.run_sync(self._run, batch)

    def _run(self, batch: "list[_Job[Any]]") -> None:
        if self._connection is None:
            self._connection = self._engine.connect()
        for job in batch:
            job.run(self._connection, keep=self._keep)


class _Job(Generic[T]):
    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self._result: T | None = None
        self._error: BaseException | None = None
        self.over = False

    def run(self, connection: Connection, *, keep: bool) -> None:
        try:
            with connection.begin() as transaction:
                self._result = drive(self._work(cast("AsyncConnection", _Direct(connection))))
                if not keep:
                    transaction.rollback()
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            self._error = error
        self.over = True

    def answer(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._result)


class _Direct:
    """As much of an AsyncConnection as our statements need; its awaits never wait."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect: Dialect = connection.dialect

    async def execute(self, statement: Any, parameters: Any = None) -> CursorResult[Any]:
        return self._connection.execute(statement, parameters)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.scalar(statement, parameters)


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits to its end."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    work.close()
    raise TypeError("a transaction in a lane awaits nothing but its connection")
