"""Pauses by hand: in force at once, kept over restarts, lifted by a resume.

What a person said comes before the setting of the queue. A resume is for this life of the agent
alone: a queue whose setting says `paused` begins the next one paused.
"""

import anyio
import structlog

from launch_async.agent.admission import Admission
from launch_async.domain.ids import QueueRef
from launch_async.ports.pauses import PauseStore

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Pauses:
    """Begins with what an earlier life kept."""

    def __init__(self, admission: Admission, store: PauseStore) -> None:
        """Raises AgentUnfit when what was kept cannot be read."""
        self._admission = admission
        self._store = store
        self._keeping = anyio.Lock()
        for queue in store.load():
            admission.pause(queue, paused=True)

    def say(self) -> None:
        """Log which of the polled queues are paused from before."""
        for queue in sorted(
            self._admission.paused_by_hand() & self._admission.limits.queues.keys(), key=str
        ):
            hint = f"launch-async agent resume {queue.name}"
            log.warning(
                "queue is paused by hand since an earlier life", queue=queue.name, hint=hint
            )

    async def set(self, queue: QueueRef, *, paused: bool) -> None:
        """Pause or resume.

        Raises:
            LaunchError: it holds for this life alone, as it cannot be kept.
        """
        log.info("queue paused" if paused else "queue resumed", queue=queue.name)
        self._admission.pause(queue, paused=paused)
        async with self._keeping:  # the last one to be written is the last one that was said
            await self._store.keep(self._admission.paused_by_hand())
