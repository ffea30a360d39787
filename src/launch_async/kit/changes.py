"""Tell whoever waits that something changed; telling never waits, so that any code may do it."""

import anyio


class Changes:
    """One kind of change. Who looks before it waits misses none: no other task runs in between."""

    def __init__(self) -> None:
        self._next = anyio.Event()
        self._waited_for = False

    def notify(self) -> None:
        """Wake all that wait now."""
        if self._waited_for:
            self._waited_for = False
            happened, self._next = self._next, anyio.Event()
            happened.set()

    async def wait(self) -> None:
        """Until the next change."""
        self._waited_for = True
        await self._next.wait()
