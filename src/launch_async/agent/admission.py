"""Room before pop: who may look into a queue now, and who first when there is not room for all.

Slots are derived from the table of open items, never counted up and down. A look holds all that
its item will use from before the pop until the item is in the table, so no limit is exceeded.

Queues share by weight (start-time fair queueing): each item that a queue gets moves its turn on by
1/weight, the lowest turn looks first, and who was away begins at the turn that it is now.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from launch_async.agent.limits import NO_LIMIT, Limits, below
from launch_async.agent.table import Kind, Table, Use, uses_of
from launch_async.domain.ids import QueueRef
from launch_async.domain.item import Item
from launch_async.domain.phase import MAX_WAITING_REPORTS, Phase
from launch_async.ports.status import LimitView

_GENERAL = (Use(Kind.JOBS), Use(Kind.WAITING), Use(Kind.REPORTS))
"""What every look needs room in, whatever its queue."""


class Look:
    """The right to pop one item from a queue."""

    def __init__(self, queue: QueueRef, uses: frozenset[Use]) -> None:
        self.queue = queue
        self.uses = uses
        """What its item will use, as far as is known before it is seen."""


class Admission:
    """Grants looks while there is room. Nothing here waits."""

    def __init__(self, table: Table, limits: Limits) -> None:
        self._table = table
        self._limits = limits
        self._looks: set[Look] = set()
        self._turns: dict[QueueRef, float] = {}
        self._turn = 0.0
        """Whose turn it is now."""
        self._closed = False
        self._paused: dict[QueueRef, bool] = {}
        """What people said; it outlives a change of limits, and its queue's absence."""
        self._targets: dict[QueueRef, str] = {}
        """The resource type of each queue, learned from its items."""

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._limits

    def change(self, limits: Limits) -> None:
        """New limits. What is over them goes on and nothing new comes until there is room."""
        self._limits = limits
        for known in (self._turns, self._targets):
            for gone in known.keys() - limits.queues.keys():
                known.pop(gone, None)
        self._table.changed.notify()

    def pause(self, queue: QueueRef, *, paused: bool) -> None:
        """Take nothing more from this queue, or take from it again, whatever its setting says."""
        self._paused[queue] = paused
        self._table.changed.notify()

    def is_paused(self, queue: QueueRef) -> bool:
        """Whether nothing is taken from this queue at the moment."""
        return self._paused.get(queue, self._limits.queues[queue].paused)

    def paused_by_hand(self) -> frozenset[QueueRef]:
        """The queues that people paused, those among them that are not polled at the moment."""
        return frozenset(queue for queue, paused in self._paused.items() if paused)

    def close(self) -> None:
        """Grant no look any more: the agent is stopping."""
        self._closed = True

    @property
    def has_room(self) -> bool:
        """Whether the agent as a whole has room for one more look."""
        return not self._closed and all(
            below(self._limit(use), self._table.used(use) + len(self._looks)) for use in _GENERAL
        )

    def grant(self, wishes: Mapping[QueueRef, int], *, at_most: int) -> list[Look]:
        """Looks for which there is room, fairest first; `wishes` says how many each would like.

        Each must be settled.
        """
        held = self.held()
        heap = [
            (self._start(ref), order, ref, wish)
            for order, (ref, wish) in enumerate(wishes.items())
            if not self.is_paused(ref)
        ]
        heapq.heapify(heap)
        granted: list[Look] = []
        while heap and not self._closed and len(granted) < at_most:
            start, order, ref, wish = heapq.heappop(heap)
            uses = self._uses(ref)
            if next(self._full(uses, held), None) is not None:
                continue
            look = Look(ref, uses)
            held.update(uses)
            granted.append(look)
            self._turn = start
            self._turns[ref] = start + 1 / self._limits.queues[ref].weight
            if wish > 1:
                heapq.heappush(heap, (self._turns[ref], order, ref, wish - 1))
        self._looks.update(granted)
        return granted

    def settle(self, look: Look, *, found: bool) -> None:
        """The look is over; its item, if it found one, is in the table or was let go.

        A look that found nothing costs no turn. Settling twice changes nothing.
        """
        if look not in self._looks:
            return
        self._looks.remove(look)
        queue = self._limits.queues.get(look.queue)
        if not found and queue is not None and look.queue in self._turns:
            self._turns[look.queue] -= 1 / queue.weight
        self._table.changed.notify()

    def fits(self, look: Look, item: Item) -> bool:
        """Whether what this look found keeps all limits: only the item tells what it really uses,
        and limits may have changed, or the agent begun to stop, since the look began.
        """
        if self._closed:
            return False
        if not item.spec.scheduler:  # which may run elsewhere than its queue's other items
            self._targets[item.queue] = item.spec.resource
        others = Counter(use for other in self._looks - {look} for use in other.uses)
        return next(self._full(uses_of(item, Phase.LEASED), others), None) is None

    def held(self) -> Counter[Use]:
        """What looks that are under way hold."""
        return Counter(use for look in self._looks for use in look.uses)

    def missing(self, queue: QueueRef, held: Counter[Use] | None = None) -> list[str]:
        """Why nothing may be taken from this queue now, in words; empty when it may, or is being
        looked into.
        """
        held = self.held() if held is None else held
        uses, own = self._uses(queue), held[Use(Kind.QUEUE, queue)]
        others = Counter({use: max(0, held[use] - own) for use in uses})
        full = {use: (limit, used) for use, limit, used in self._full(uses, others)}
        if Use(Kind.WAITING) in full:
            full.pop(Use(Kind.WAITING, queue), None)  # says less
        texts = [
            limit_in_words(use, limit, used, kept=others[use])
            for use, (limit, used) in full.items()
        ]
        if not self.is_paused(queue):
            return texts
        by = "by hand" if self._paused.get(queue) else "by its setting `paused`"
        return [f"the queue is paused {by}", *texts]

    def views(self) -> Iterator[LimitView]:
        """Every limit but the queues' own, with what is used of it."""
        uses = [*_GENERAL, Use(Kind.SCHEDULERS)]
        uses += [Use(Kind.TARGET, name) for name in self._limits.targets]
        for use in uses:
            name = f"{use.kind}/{use.of}" if use.of else str(use.kind)
            yield LimitView(name=name, limit=self._limit(use), used=self._table.used(use))

    @property
    def looks(self) -> int:
        """Pops that are under way."""
        return len(self._looks)

    def _start(self, queue: QueueRef) -> float:
        return max(self._turn, self._turns.get(queue, 0.0))

    def _uses(self, queue: QueueRef) -> frozenset[Use]:
        uses = {*_GENERAL, Use(Kind.QUEUE, queue), Use(Kind.WAITING, queue)}
        target = self._targets.get(queue)
        return frozenset(uses if target is None else uses | {Use(Kind.TARGET, target)})

    def _full(self, uses: Iterable[Use], held: Counter[Use]) -> Iterator[tuple[Use, int, int]]:
        for use in uses:
            limit, used = self._limit(use), self._table.used(use)
            if not below(limit, used + held[use]):
                yield use, limit, used

    def _limit(self, use: Use) -> int:  # noqa: PLR0911 - one for each kind
        limits = self._limits
        match use.kind:
            case Kind.JOBS:
                return limits.max_jobs
            case Kind.WAITING:
                return limits.waiting
            case Kind.SCHEDULERS:
                return limits.max_schedulers
            case Kind.REPORTS:
                return MAX_WAITING_REPORTS
            case Kind.TARGET:
                return limits.targets.get(str(use.of), NO_LIMIT)
            case Kind.QUEUE:
                queue = limits.queues.get(use.of) if isinstance(use.of, QueueRef) else None
                return NO_LIMIT if queue is None else queue.max_jobs
            case Kind.RUN:  # who waits for a run id waits in its journey
                return NO_LIMIT


def limit_in_words(use: Use, limit: int, used: int, *, kept: int) -> str:
    """A limit that is reached, by its setting's name; so many are kept for what looks may find."""
    if use.kind is Kind.WAITING and use.of:
        return f"agent.waiting is {limit} and so many of this queue wait, some for their backend"
    setting = {
        Kind.JOBS: "max_jobs",
        Kind.WAITING: "agent.waiting",
        Kind.SCHEDULERS: "max_schedulers",
        Kind.TARGET: f"agent.targets.{use.of}.max_jobs",
        Kind.QUEUE: "the queue's max_jobs",
        Kind.REPORTS: "the number of ended items whose report may wait",
        Kind.RUN: "one item per run id",
    }[use.kind]
    looks = f", {kept} kept for looks under way" if below(limit, used) else ""
    return f"{setting} is {limit} and {used} are in use{looks}"
