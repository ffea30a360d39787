"""How late the event loop runs, and who blocks it.

```
loop    a task ticks: how late was it?  -> seconds, worst, p99 of a sliding window
thread  no tick for too long?           -> wedged, and a log with the stack and the task's name
```

A probe that is answered on the same loop fails by getting no answer while the loop is blocked; the
count of such blocks stays for the metrics, and the log says when it runs again.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import structlog

INTERVAL_SECONDS = 0.25
SAMPLES = 240
"""A minute of them."""
LIMIT_SECONDS = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class LoopLag:
    """The lag of the loop that `run()` runs on."""

    def __init__(
        self, *, interval_seconds: float = INTERVAL_SECONDS, limit_seconds: float = LIMIT_SECONDS
    ) -> None:
        self.seconds = 0.0
        """Of the last tick."""
        self.worst_seconds = 0.0
        """Since the start."""
        self.wedged = False
        """Whether the loop is blocked for longer than the limit; other threads alone can see it."""
        self.blocks = 0
        """How often it was."""
        self._interval_seconds = interval_seconds
        self._limit_seconds = limit_seconds
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._ticked = 0.0
        """On `time.monotonic`, which threads may ask; it stands still while a host is suspended."""

    async def run(self) -> None:
        """Measure until cancelled."""
        self._ticked = time.monotonic()
        with self._watchdog(asyncio.get_running_loop()):
            while True:
                due = time.monotonic() + self._interval_seconds
                await anyio.sleep(self._interval_seconds)
                self._tick(due)

    def window(self) -> tuple[float, float]:
        """The 99th percentile and the worst of the last ticks, in seconds."""
        ordered = sorted(self._samples)
        if not ordered:
            return 0.0, 0.0
        return ordered[(len(ordered) - 1) * 99 // 100], ordered[-1]

    def _tick(self, due: float) -> None:
        self._ticked = time.monotonic()
        self.seconds = max(0.0, self._ticked - due)
        self.worst_seconds = max(self.worst_seconds, self.seconds)
        self._samples.append(self.seconds)
        if self.wedged:
            self.wedged = False
            log.warning("event loop runs again", blocked_seconds=round(self.seconds, 3))

    @contextmanager
    def _watchdog(self, loop: asyncio.AbstractEventLoop) -> Generator[None, None, None]:
        """The thread lives as long as the block. It only reads, and nobody waits for it: blocked
        in a log that cannot be written, it must not keep the agent from ending.
        """
        done = threading.Event()
        watched = threading.get_ident()
        threading.Thread(
            target=self._watch, args=(loop, watched, done), name="loop watchdog", daemon=True
        ).start()
        try:
            yield
        finally:
            done.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int, done: threading.Event) -> None:
        while not done.wait(self._limit_seconds / 4):
            silent = time.monotonic() - self._ticked - self._interval_seconds
            if silent <= self._limit_seconds or self.wedged:
                continue
            task = asyncio.current_task(loop)
            frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            frame = frames.get(thread)
            stack = "".join(traceback.format_stack(frame)) if frame else ""
            self.wedged = True
            self.blocks += 1
            log.error(
                "event loop is blocked",
                task=task.get_name() if task else "none",
                seconds=round(silent, 3),
                stack=stack,
            )
