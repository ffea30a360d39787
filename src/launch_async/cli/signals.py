"""SIGINT and SIGTERM: the first begins to stop, the second is in a hurry. SIGHUP: reload."""

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup

MAX_RELOADS = 2

Reload = Callable[[], Coroutine[Any, Any, None]]


async def on_signals(
    stop: Callable[[str], None],
    reload: Reload | None = None,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    """Call `stop` with the signal's name, or `reload` at SIGHUP, until cancelled.

    A program whose terminal was closed gets SIGHUP too, and ends by it as any other does.
    """
    handled = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if reload else [])
    on_terminal = _is_terminal()
    with anyio.open_signal_receiver(*handled) as received:
        task_status.started()
        # A reload may wait for the service; the signals after it must not wait for the reload.
        async with anyio.create_task_group() as tasks:
            reloads = _Reloads(reload, tasks) if reload else None
            async for number in received:
                if number != signal.SIGHUP or reloads is None:
                    stop(signal.Signals(number).name)
                elif on_terminal and not _is_terminal():
                    signal.signal(signal.SIGHUP, signal.SIG_DFL)
                    os.kill(os.getpid(), signal.SIGHUP)
                else:
                    reloads.ask()


class _Reloads:
    """One at a time, and one more that waits: it sees what all later signals mean as well."""

    def __init__(self, reload: Reload, tasks: TaskGroup) -> None:
        self._reload = reload
        self._tasks = tasks
        self._turn = anyio.Lock()
        self._asked = 0

    def ask(self) -> None:
        if self._asked < MAX_RELOADS:
            self._asked += 1
            self._tasks.start_soon(self._run, name="reload")

    async def _run(self) -> None:
        try:
            async with self._turn:
                await self._reload()
        finally:
            self._asked -= 1


def _is_terminal() -> bool:
    return sys.stderr.isatty()
