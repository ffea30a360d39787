"""Polls all queues: looks are granted by admission, put into few requests, and their items handed
over.

```
due queues -> admission -looks-> requests -items-> table -> journeys
```

What becomes free while a request is under way is asked for by the next one, so that a busy agent
makes fewer requests, not more. A request that is slow does not hold up the others.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import anyio
import structlog

from launch_async.agent.admission import Admission, Look
from launch_async.agent.polled import MAX_WIDTH, Pace, PolledQueue, asked_pause, names_of
from launch_async.agent.table import Table, Tracked
from launch_async.domain.errors import AgentUnfit, LaunchError, Reason, Stage, Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.ports.queue import ItemQueue, Popped, QueueHints, RejectedItem

MAX_REQUESTS = 4
SLOW_SECONDS = 0.5
"""After so long without an answer a request has company."""
GATHERED = 0.25
"""Of the shortest pause: who would be due so soon is looked into along with who is due."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class NoHints:
    """For services that give none."""

    async def next(self, queues: Sequence[QueueRef]) -> Sequence[QueueRef]:
        """Never comes."""
        del queues
        await anyio.sleep_forever()
        return ()


class Poller:
    """Polls for as long as it runs. `queues` may change meanwhile, by `follow`."""

    def __init__(
        self,
        *,
        service: ItemQueue,
        admission: Admission,
        table: Table,
        hand_over: Callable[[Tracked], None],
        pace: Pace,
        hints: QueueHints | None = None,
    ) -> None:
        self.queues: dict[QueueRef, PolledQueue] = {}
        self.pace = pace
        self._service = service
        self._admission = admission
        self._table = table
        self._hand_over = hand_over
        self._hints = hints or NoHints()
        self._resting: list[tuple[float, int, PolledQueue]] = []
        self._ready: dict[QueueRef, PolledQueue] = {}
        """Due queues that are not being looked into, longest first."""
        self._number = 0
        self._requests: dict[int, float] = {}
        """When each request that is under way began."""
        self._not_before = 0.0

    def follow(self, queues: Iterable[QueueRef]) -> None:
        """Poll these queues from now on; new ones at once."""
        wanted = list(queues)
        for gone in self.queues.keys() - set(wanted):
            del self.queues[gone]
            self._ready.pop(gone, None)
        for ref in wanted:
            if ref not in self.queues:
                self.queues[ref] = self._ready[ref] = PolledQueue(ref)
        self._table.changed.notify()

    async def run(self) -> None:
        """Until cancelled. Errors are logged once per change and waited out.

        Raises:
            AgentUnfit: the key was refused.
        """
        async with anyio.create_task_group() as requests:
            requests.start_soon(self._hear_hints, name="queue hints")
            while True:
                looks = self._granted()
                for batch in self._batches(looks):
                    self._number += 1
                    self._requests[self._number] = anyio.current_time()
                    requests.start_soon(self._ask, self._number, batch, name="look")
                if not looks:
                    with anyio.move_on_after(self._pause_seconds()):
                        await self._table.changed.wait()

    def _granted(self) -> list[Look]:
        now = anyio.current_time()
        due = bool(self._resting) and self._resting[0][0] <= now
        soon = now + self.pace.poll * GATHERED if due else now
        while self._resting and self._resting[0][0] <= soon:
            _, _, queue = heapq.heappop(self._resting)
            if self.queues.get(queue.ref) is queue:
                self._ready[queue.ref] = queue
        if not self._ready or now < self._free_at() or not self._admission.has_room:
            return []
        wishes = {ref: queue.appetite for ref, queue in self._ready.items()}
        looks = self._admission.grant(wishes, at_most=MAX_WIDTH)
        for look in looks:
            self._ready.pop(look.queue, None)
        return looks

    def _free_at(self) -> float:
        """When the next request may begin."""
        if not self._requests:
            return self._not_before
        if len(self._requests) >= MAX_REQUESTS:
            return float("inf")
        return max(self._not_before, max(self._requests.values()) + SLOW_SECONDS)

    def _pause_seconds(self) -> float:
        """Until time alone makes a look possible."""
        now = anyio.current_time()
        moments = [self._resting[0][0]] if self._resting else []
        free_at = self._free_at()
        if self._ready and free_at > now:
            moments.append(free_at)
        return max(0.0, min(moments, default=float("inf")) - now)

    def _batches(self, looks: Sequence[Look]) -> Iterator[list[Look]]:
        """Looks of one request each: who was in one that failed gets smaller company."""
        by_width: dict[int, list[Look]] = {}
        for look in looks:
            by_width.setdefault(self.queues[look.queue].width, []).append(look)
        for width, alike in by_width.items():
            for start in range(0, len(alike), width):
                yield alike[start : start + width]

    async def _ask(self, number: int, looks: Sequence[Look]) -> None:
        asked = Counter(look.queue for look in looks)
        pace = self.pace.jittered()
        try:
            answers = await self._service.pop([look.queue for look in looks])
            rejected = self._take(looks, answers, pace)
        except AgentUnfit:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of one request
            self._unanswered(list(asked), error, pace)
            self._blame(list(asked), error, width=len(looks))
            rejected = []
        finally:
            for look in looks:
                self._admission.settle(look, found=False)
            del self._requests[number]
            for ref in asked:
                self._let_rest(ref)
        for item in rejected:
            await self._fail(item)

    def _take(
        self, looks: Sequence[Look], answers: Sequence[Popped], pace: Pace
    ) -> list[RejectedItem]:
        """Settle the looks, empty ones first: what they held is free for the others' items."""
        found: list[tuple[Look, Item]] = []
        rejected: list[RejectedItem] = []
        items: Counter[QueueRef] = Counter()
        errors: dict[QueueRef, Unavailable] = {}
        for look, answer in zip(looks, answers, strict=True):
            match answer:
                case Item():
                    found.append((look, answer))
                    continue
                case RejectedItem():
                    rejected.append(answer)
                    items[look.queue] += 1
                case Unavailable():
                    errors[look.queue] = answer
                case None:
                    pass
            self._admission.settle(look, found=False)
        for look, item in found:
            items[look.queue] += self._admit(look, item)
            self._admission.settle(look, found=True)
        recovered: list[PolledQueue] = []
        for ref, of in Counter(look.queue for look in looks).items():
            queue = self.queues.get(ref)
            if queue is None:
                continue
            if ref in errors:
                self._unanswered([ref], errors[ref], pace)
                continue
            recovered += [queue] if queue.fault else []
            queue.answered(items[ref], of=of, pace=pace)
        if recovered:
            log.info("queues can be polled again", queues=names_of(recovered))
        return rejected

    def _admit(self, look: Look, item: Item) -> bool:
        """Whether it was taken; what would break a limit goes back with its lease."""
        if not self._admission.fits(look, item):
            log.info("no room for this item: it goes back with its lease", item=item.id)
            return False
        tracked = self._table.admit(item)
        if tracked is not None:
            self._hand_over(tracked)
        return True

    def _blame(self, refs: Sequence[QueueRef], error: Exception, *, width: int) -> None:
        """A request failed as a whole: the service wants quiet, or one of its queues did it."""
        pause = asked_pause(error)
        if pause is not None:
            self._not_before = max(self._not_before, anyio.current_time() + pause)
        elif len(refs) > 1:
            for ref in refs:
                if ref in self.queues:
                    self.queues[ref].suspect(width)

    def _unanswered(self, refs: Sequence[QueueRef], error: Exception, pace: Pace) -> None:
        queues = [self.queues[ref] for ref in refs if ref in self.queues]
        fresh = [queue for queue in queues if not queue.fault]
        for queue in queues:
            queue.failed(error, pace=pace)
        if fresh:
            log.warning(
                "queues cannot be polled",
                queues=names_of(fresh),
                reason=str(error) or type(error).__name__,
                exc_info=error if not isinstance(error, LaunchError) else None,
            )

    def _let_rest(self, ref: QueueRef) -> None:
        queue = self.queues.get(ref)
        if queue is not None:
            self._number += 1
            heapq.heappush(self._resting, (queue.due_at, self._number, queue))

    async def _fail(self, item: RejectedItem) -> None:
        log.warning("item rejected", item=item.id, queue=item.queue.name, reason=item.message)
        outcome = Outcome(
            failed=True, message=item.message, stage=Stage.AGENT, reason=Reason.SPEC_INVALID
        )
        try:
            await self._service.fail(item, outcome, files=())
        except AgentUnfit:
            raise
        except Exception as error:  # noqa: BLE001 - it comes again after its lease
            log.warning("rejected item not failed yet", item=item.id, reason=str(error))

    async def _hear_hints(self) -> None:
        """Hints only make looks sooner; without them nothing is missed."""
        while True:
            try:
                named = await self._hints.next(list(self.queues))
            except LaunchError as error:
                log.debug("no hints", reason=str(error))
                await anyio.sleep(self.pace.poll_max)
                continue
            for ref in named:
                queue = self.queues.get(ref)
                if queue is not None and any(rest[2] is queue for rest in self._resting):
                    self._resting = [rest for rest in self._resting if rest[2] is not queue]
                    heapq.heapify(self._resting)
                    self._ready[ref] = queue
            self._table.changed.notify()
