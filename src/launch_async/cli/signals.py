"""SIGINT and SIGTERM: the first begins to stop, the second is in a hurry. SIGHUP: reload."""

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def on_signals(
    stop: Callable[[str], None],
    reload: Callable[[], Coroutine[Any, Any, None]] | None = None,
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
        async with anyio.create_task_group() as reloads:
            async for number in received:
                if number != signal.SIGHUP or reload is None:
                    stop(signal.Signals(number).name)
                elif on_terminal and not _is_terminal():
                    signal.signal(signal.SIGHUP, signal.SIG_DFL)
                    os.kill(os.getpid(), signal.SIGHUP)
                else:
                    reloads.start_soon(reload, name="reload")


def _is_terminal() -> bool:
    return sys.stderr.isatty()
