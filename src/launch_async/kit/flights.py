"""One piece of work for all who want the same thing, ended when nobody wants it any more."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


class Flights(Generic[T]):
    """Work by key. It belongs to `run`, not to whoever asked first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: TaskGroup | None = None
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def run(self) -> None:
        """Own the work, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            await anyio.sleep_forever()

    def __len__(self) -> int:
        return len(self._flights)

    async def get(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, or the error that it raises, to all who ask while it is under way.

        Who is cancelled leaves; the last one who leaves ends the work.
        """
        flight = self._flights.get(key)
        if flight is None:
            if self._tasks is None:
                msg = f"{self._name} are not running"
                raise RuntimeError(msg)
            flight = self._flights[key] = _Flight(work)
            self._tasks.start_soon(self._fly, key, flight, name=f"{self._name} {key}")
        flight.wanted += 1
        try:
            await flight.landed.wait()
        finally:
            flight.wanted -= 1
            if not flight.wanted and not flight.landed.is_set():
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.scope.cancel()
        if flight.fault is not None:
            raise flight.fault
        return flight.result  # type: ignore[return-value]

    async def _fly(self, key: Hashable, flight: "_Flight[T]") -> None:
        try:
            with flight.scope:
                flight.result = await flight.work()
        except Exception as error:  # noqa: BLE001 - raised to all who wait
            flight.fault = error
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
        self.fault: Exception | None = None
