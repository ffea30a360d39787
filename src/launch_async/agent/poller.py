"""Polls all queues: looks are granted by admission, put into few requests, and their items handed
over.

```
due queues -> admission -looks-> requests -items-> table -> journeys
```

What becomes free while a request is under way is asked for by the next one, so that a busy agent
makes fewer requests, not more.

A queue that hangs costs the others one time limit, once: when a request fails as a whole, each of
its queues is asked alone, at once, and those that answer are together again by then. What is asked
alone has places of its own, so that it takes none of the others', and keeps a slot only for as long
as an answer usually takes.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import anyio
import msgspec
import structlog

from launch_async.agent.admission import Admission, Look
from launch_async.agent.polled import Pace, PolledQueue, Standing, asked_pause, names_of
from launch_async.agent.table import Table, Tracked
from launch_async.domain.errors import AgentUnfit, LaunchError, Reason, Stage, Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.ports.queue import ItemQueue, Popped, QueueHints, RejectedItem

MAX_WIDTH = 50
"""Looks in one request at most; our server takes some 200, of others nothing is known."""
PLACES: Mapping[Standing, int] = {Standing.TRUSTED: 12, Standing.SUSPECT: 16, Standing.SICK: 4}
"""Requests under way at most, by the standing of their queues."""
SLOW_SECONDS = 0.5
"""After so long without an answer another request may begin, and a queue that is asked alone gives
its slots back."""
GATHERED = 0.25
"""Of the shortest pause: who would be due so soon is looked into along with who is due."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Request(msgspec.Struct, frozen=True):
    """One that is under way."""

    began: float
    standing: Standing


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
        self._requests: dict[int, _Request] = {}
        self._width = MAX_WIDTH
        """Looks in the next request: half as many after one of several looks failed, one more after
        one so wide was answered."""
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
                    standing = self.queues[batch[0].queue].standing
                    self._number += 1
                    self._requests[self._number] = _Request(anyio.current_time(), standing)
                    requests.start_soon(self._ask, self._number, batch, name="look")
                    if standing is not Standing.TRUSTED:
                        requests.start_soon(self._give_back, batch, name="slow look")
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
        if not self._ready or now < self._not_before or not self._admission.has_room:
            return []
        wishes = {queue.ref: queue.appetite for queue in self._askable(now)}
        looks = self._admission.grant(wishes, at_most=self._width)
        for look in looks:
            self._ready.pop(look.queue, None)
        return looks

    def _askable(self, now: float) -> Iterator[PolledQueue]:
        """Ready queues that have a place; who is asked alone has it only if there are slots too."""
        used = Counter(request.standing for request in self._requests.values())
        together = now >= self._together_at()
        held = self._admission.held()
        for queue in self._ready.values():
            standing = queue.standing
            if standing is Standing.TRUSTED:
                if together:
                    yield queue
            elif used[standing] < PLACES[standing] and not self._admission.missing(queue.ref, held):
                used[standing] += 1
                yield queue

    def _together_at(self) -> float:
        """When the next request of trusted queues may begin."""
        begun = [one.began for one in self._requests.values() if one.standing is Standing.TRUSTED]
        if len(begun) >= PLACES[Standing.TRUSTED]:
            return float("inf")
        return max(begun) + SLOW_SECONDS if begun else 0.0

    def _pause_seconds(self) -> float:
        """Until time alone makes a look possible."""
        now = anyio.current_time()
        moments = [self._resting[0][0]] if self._resting else []
        if self._ready:
            moments += [at for at in (self._not_before, self._together_at()) if at > now]
        return max(0.0, min(moments, default=float("inf")) - now)

    def _batches(self, looks: Sequence[Look]) -> Iterable[list[Look]]:
        """Looks of one request each."""
        batches: dict[QueueRef | None, list[Look]] = {}
        for look in looks:
            trusted = self.queues[look.queue].standing is Standing.TRUSTED
            batches.setdefault(None if trusted else look.queue, []).append(look)
        return batches.values()

    async def _ask(self, number: int, looks: Sequence[Look]) -> None:
        asked = Counter(look.queue for look in looks)
        pace = self.pace.jittered()
        try:
            answers = await self._service.pop([look.queue for look in looks])
            rejected = self._take(looks, answers, pace)
            if len(looks) >= self._width:
                self._width = min(self._width + 1, MAX_WIDTH)
        except AgentUnfit:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of one request
            self._lost(asked, error, pace)
            rejected = []
        finally:
            for look in looks:
                self._admission.settle(look, found=False)
            del self._requests[number]
            for ref in asked:
                self._let_rest(ref)
            self._table.changed.notify()
        for item in rejected:
            await self._fail(item)

    async def _give_back(self, looks: Sequence[Look]) -> None:
        """Slots are for those who answer. What comes late is taken if there is room for it then."""
        await anyio.sleep(SLOW_SECONDS)
        for look in looks:
            self._admission.settle(look, found=False)

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

    def _lost(self, asked: Counter[QueueRef], error: Exception, pace: Pace) -> None:
        """A request failed as a whole: the service wants quiet, or one of its queues did it."""
        refs = list(asked)
        pause = asked_pause(error)
        if pause is not None:
            self._not_before = max(self._not_before, anyio.current_time() + pause)
            self._unanswered(refs, error, pace)
            return
        if asked.total() > 1:
            self._width = max(1, self._width // 2)
        queues = [self.queues[ref] for ref in refs if ref in self.queues]
        if len(refs) == 1:
            self._unanswered(refs, error, pace)
            for queue in queues:
                queue.failed_alone()
            return
        for queue in queues:
            queue.failed_together()
        log.info(
            "a request for several queues failed: each is asked alone",
            queues=names_of(queues),
            **_said_of(error),
        )

    def _unanswered(self, refs: Sequence[QueueRef], error: Exception, pace: Pace) -> None:
        queues = [self.queues[ref] for ref in refs if ref in self.queues]
        fresh = [queue for queue in queues if not queue.fault]
        for queue in queues:
            queue.failed(error, pace=pace)
        if fresh:
            log.warning(
                "queues cannot be polled",
                queues=names_of(fresh),
                **_said_of(error),
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


def _said_of(error: Exception) -> dict[str, Any]:
    """For a log line: a fault of ours with its traceback."""
    return {
        "reason": str(error) or type(error).__name__,
        "exc_info": error if not isinstance(error, LaunchError) else None,
    }
