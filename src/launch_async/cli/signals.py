"""SIGINT and SIGTERM: the first begins to stop, the second is in a hurry."""

import signal
from collections.abc import Callable

import anyio
import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def on_signals(
    stop: Callable[[str], None], *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    """Call `stop` with the signal's name for each one, until cancelled."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for number in received:
            stop(signal.Signals(number).name)
