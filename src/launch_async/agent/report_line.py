"""The order in which ends are told: the oldest first, and one at a time while nobody listens.

A report that fails is tried again by itself, the others wait: an outage of hours costs one request
a pause, and is followed by the reports in the order of their ends. One that fails `TRIES` times in
a row lets the next ones try, for it may be the only one that the service does not take.
"""

import heapq
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import anyio

from launch_async.domain.errors import Unavailable

WIDTH = 8
"""Reports under way at once while the service answers."""
TRIES = 5


class _Ticket:
    """One report's place."""

    def __init__(self, ended_at: float, number: int) -> None:
        self.ended_at = ended_at
        self.number = number
        self.failures = 0
        self.forgiven = False
        self.called = anyio.Event()

    @property
    def tries(self) -> int:
        """How often it may try in a row."""
        return 1 if self.failures else TRIES

    def __lt__(self, other: "_Ticket") -> bool:
        mine = (self.failures, self.ended_at, self.number)
        return mine < (other.failures, other.ended_at, other.number)


class ReportLine:
    """All reports of one agent go through it."""

    def __init__(self) -> None:
        self._waiting: list[_Ticket] = []
        self._speaking = 0
        self._sick = False
        self._numbers = count()

    async def tell(
        self,
        attempt: Callable[[], Awaitable[None]],
        *,
        ended_at: float,
        rest: Callable[[Unavailable], Awaitable[None]],
    ) -> None:
        """Repeat `attempt` until it is heard; `rest` is the pause after each outage."""
        ticket = _Ticket(ended_at, next(self._numbers))
        while True:
            async with self._turn(ticket):
                for _ in range(ticket.tries):
                    try:
                        await attempt()
                    except Unavailable as error:
                        self._sick = True
                        await rest(error)
                    else:
                        self._heard()
                        return
            ticket.failures += 1

    @asynccontextmanager
    async def _turn(self, ticket: _Ticket) -> AsyncGenerator[None, None]:
        ticket.called = anyio.Event()
        heapq.heappush(self._waiting, ticket)
        self._call()
        try:
            await ticket.called.wait()
        except BaseException:
            if ticket.called.is_set():
                self._speaking -= 1
            else:
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)
            self._call()
            raise
        try:
            yield
        finally:
            self._speaking -= 1
            self._call()

    def _heard(self) -> None:
        """After an outage all that failed in it begin again in order, but each only once."""
        if not self._sick:
            return
        self._sick = False
        for ticket in self._waiting:
            if not ticket.forgiven:
                ticket.failures, ticket.forgiven = 0, True
        heapq.heapify(self._waiting)

    def _call(self) -> None:
        while self._waiting and self._speaking < (1 if self._sick else WIDTH):
            self._speaking += 1
            heapq.heappop(self._waiting).called.set()
