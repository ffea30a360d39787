"""One piece of work for all who want the same thing, ended when nobody wants it any more."""

from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


class Flights(Generic[T]):
    """Work by key. It belongs to `run`, not to who asked first; who asks before `run` waits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: TaskGroup | None = None
        self._running = anyio.Event()
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def run(self) -> None:
        """Own the work, until cancelled; what that cuts off is begun anew by the next `run`."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._running.set()
            try:
                await anyio.sleep_forever()
            finally:  # before the group's end, or what was cut off would begin anew in it
                self._tasks, self._running = None, anyio.Event()

    def __len__(self) -> int:
        return len(self._flights)

    async def get(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, or the error that it raises, to all who ask while it is under way.

        Who is cancelled leaves; the last one who leaves ends the work.
        """
        while True:
            flight = await self._joined(key, work)
            try:
                await flight.landed.wait()
            finally:
                self._leave(key, flight)
            if flight.fault is not None:
                # An exception grows with each raise, and keeps all that it passed through.
                raise flight.fault.with_traceback(flight.traceback)
            if flight.done:
                return flight.result  # type: ignore[return-value]

    async def _joined(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> "_Flight[T]":
        while self._tasks is None:
            await self._running.wait()
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(work)
            self._tasks.start_soon(self._fly, key, flight, name=f"{self._name} {key}")
        flight.wanted += 1
        return flight

    def _leave(self, key: Hashable, flight: "_Flight[T]") -> None:
        flight.wanted -= 1
        if not flight.wanted and not flight.landed.is_set():
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.scope.cancel()

    async def _fly(self, key: Hashable, flight: "_Flight[T]") -> None:
        try:
            with flight.scope:
                flight.result = await flight.work()
                flight.done = True
        except Exception as error:  # noqa: BLE001 - raised to all who wait
            flight.fault, flight.traceback = error, error.__traceback__
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.landed.set()


class _Flight(Generic[T]):
    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self.work = work
        self.scope = anyio.CancelScope()
        self.landed = anyio.Event()
        self.wanted = 0
        self.result: T | None = None
        self.done = False
        """Whether there is a result: what is cut off has neither that nor a fault."""
        self.fault: Exception | None = None
        self.traceback: TracebackType | None = None
