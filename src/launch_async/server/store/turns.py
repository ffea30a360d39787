"""Who may use SQLite's one writer: one at a time, in the order in which they asked."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

Begin = Callable[[], bool]
"""Called when it is one's turn; False: one does not want it any more."""


class Turn:
    """A lock that also serves those who have no task of their own. Of one event loop."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[Begin] = deque()

    def ask(self, begin: Begin) -> None:
        """Have `begin` called, now or when those before have ended; `end` is due then."""
        self._waiting.append(begin)
        if not self._taken:
            self.end()

    def end(self) -> None:
        """Let the next one begin."""
        self._taken = True
        while self._waiting:
            if self._waiting.popleft()():
                return
        self._taken = False

    async def __aenter__(self) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> bool:
            if mine.cancelled():
                return False
            mine.set_result(None)
            return True

        self.ask(begin)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # it was our turn already
                self.end()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
