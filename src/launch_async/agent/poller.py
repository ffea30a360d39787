"""One queue's poller: look when there is room, hand over what is found, rest when it is empty."""

import random
from collections import Counter
from collections.abc import Callable

import anyio
import structlog

from launch_async.agent.admission import Admission, QueueLimit
from launch_async.agent.table import Table, Tracked
from launch_async.domain.errors import AgentUnfit, LaunchError, Reason, Stage, Unavailable
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.ports.queue import ItemQueue, RejectedItem

MAX_PAUSE_SECONDS = 60.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Poller:
    """Polls one queue for as long as it runs."""

    def __init__(
        self,
        queue: QueueLimit,
        *,
        service: ItemQueue,
        admission: Admission,
        table: Table,
        hand_over: Callable[[Tracked], None],
        idle_seconds: float,
    ) -> None:
        self.queue = queue
        self.polls: Counter[str] = Counter()
        self.last_answer: float | None = None
        """When the queue last answered, on the loop's clock."""
        self._service = service
        self._admission = admission
        self._table = table
        self._hand_over = hand_over
        self._idle_seconds = idle_seconds

    async def run(self) -> None:
        """Until cancelled. Errors are logged once per change and waited out.

        Raises:
            AgentUnfit: the key was refused.
        """
        structlog.contextvars.bind_contextvars(queue=self.queue.ref.name)
        sick = False
        while True:
            pause = 0.0
            try:
                async with self._admission.look(self.queue):
                    found = await self._look()
            except AgentUnfit:
                raise
            except Exception as error:
                if not sick:
                    log.warning(
                        "queue cannot be polled",
                        reason=str(error) or type(error).__name__,
                        exc_info=not isinstance(error, LaunchError),
                    )
                sick = True
                self.polls["error"] += 1
                asked = error.retry_after_seconds if isinstance(error, Unavailable) else None
                pause = min(asked or self._idle_seconds, MAX_PAUSE_SECONDS)
            else:
                if sick:
                    log.info("queue can be polled again")
                sick = False
                self.last_answer = anyio.current_time()
                self.polls["item" if found else "empty"] += 1
                pause = 0.0 if found else self._idle_seconds
            await anyio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _look(self) -> bool:
        popped = await self._service.pop(self.queue.ref)
        match popped:
            case None:
                return False
            case RejectedItem():
                log.warning("item rejected", item=popped.id, reason=popped.message)
                outcome = Outcome(
                    failed=True,
                    message=popped.message,
                    stage=Stage.AGENT,
                    reason=Reason.SPEC_INVALID,
                )
                await self._service.fail(popped, outcome, files=())
            case Item():
                tracked = self._table.admit(popped)
                if tracked is not None:
                    self._hand_over(tracked)
        return True
