"""The table of open items: what slots are derived from, and the only writer of the journal."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import anyio
import structlog

from launch_async.domain.ids import ItemId, QueueRef, RunId
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import HOLDS_SLOT, Phase, move
from launch_async.domain.run import RunHandle
from launch_async.kit.changes import Changes
from launch_async.kit.clock import moment_now
from launch_async.kit.durations import Durations
from launch_async.kit.latch import Latch
from launch_async.ports.journal import Entry, Journal

NOT_LAUNCHED = frozenset({Phase.LEASED, Phase.CLAIMING, Phase.PREPARING, Phase.LAUNCHING})
_MAY_BE_HELD_UP = frozenset({Phase.PREPARING, Phase.LAUNCHING})

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Kind(StrEnum):
    """What an open item takes a part of."""

    JOBS = "jobs"
    """All slots of the agent."""
    QUEUE = "queue"
    TARGET = "target"
    WAITING = "waiting"
    """Places of items that are taken but not launched; of a queue, those of its own."""
    SCHEDULERS = "schedulers"
    REPORTS = "reports"
    """Ended items whose report waits."""
    RUN = "run"
    """The run id, which one item has for itself."""


class Use(NamedTuple):
    """One thing that items share; `of` tells queues, targets and run ids apart."""

    kind: Kind
    of: QueueRef | str = ""


class _Standing(NamedTuple):
    """All that decides what an item uses."""

    item: Item
    phase: Phase
    held_up: bool


class Tracked:
    """One open item in memory; its `entry` is what the journal holds."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.since = anyio.current_time()
        self.detail = ""
        """What the item is doing within its phase, for people."""
        self.stop = Latch()
        """Set when the run's user, or the agent's operator, asks for it to be stopped."""
        if entry.stop_requested:
            self.stop.set()
        self.held_up = False
        """Whether it waits for a backend that does not answer: others must not wait with it."""
        self.run_lived = False
        """Whether the service was seen to call its run alive: an end that it tells is this one's,
        not that of an earlier item with the same run."""
        self.warnings: list[str] = []
        """What its user was told in this life of the agent, each once."""
        self.build_log: Path | None = None
        """What the build of its image printed, if this life of the agent saw one."""

    @property
    def item(self) -> Item:
        """The item itself."""
        return self.entry.item

    @property
    def standing(self) -> _Standing:
        """What decides what it uses now."""
        return _Standing(self.entry.item, self.entry.phase, self.held_up)

    def say(self, detail: str) -> None:
        """As `ports.build.Progress.say`."""
        self.detail = detail

    def keep_log(self, path: Path) -> None:
        """As `ports.build.Progress.keep_log`."""
        self.build_log = path


class Table:
    """All open items by id. An item is in it from its pop until it is done."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._items: dict[ItemId, Tracked] = {}
        self._users: defaultdict[Use, set[ItemId]] = defaultdict(set)
        self._changed = Changes()
        self.launched = 0
        self.adopted = 0
        self.ended: Counter[str] = Counter()
        self.phases: Counter[tuple[QueueRef, Phase]] = Counter()
        """All open items counted, for people; limits are kept by what is used."""
        self.durations: dict[str, Durations] = {}
        """How long items were in each phase, as far as this life saw it."""

    def __iter__(self) -> Iterator[Tracked]:
        return iter(tuple(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items

    @property
    def changed(self) -> Changes:
        """Told when an item comes, goes, or gives back what it used."""
        return self._changed

    def get(self, item_id: str) -> Tracked | None:
        """The open item of this id."""
        return self._items.get(ItemId(item_id))

    def used(self, use: Use) -> int:
        """How many open items share in this."""
        return len(self._users.get(use, ()))

    def users(self, use: Use) -> frozenset[ItemId]:
        """The open items that share in this."""
        return frozenset(self._users.get(use, ()))

    def run_ids(self) -> frozenset[RunId]:
        """The runs of all open items."""
        return frozenset(tracked.item.run_id for tracked in self._items.values())

    def busy(self, tracked: Tracked) -> bool:
        """Whether another open item has this one's run id; two runs cannot be one.

        In another project too: backends name what they run after the run id alone.
        """
        return bool(self.users(Use(Kind.RUN, tracked.item.run_id)) - {tracked.item.id})

    def audit(self) -> int:
        """How many items were counted wrongly; they are counted rightly afterwards."""
        truth: defaultdict[Use, set[ItemId]] = defaultdict(set)
        for item_id, tracked in self._items.items():
            for use in uses_of(*tracked.standing):
                truth[use].add(item_id)
        wrong: set[ItemId] = set()
        for use in truth.keys() | self._users.keys():
            wrong |= truth.get(use, set()) ^ self._users.get(use, set())
        phases = Counter((one.item.queue, one.entry.phase) for one in self._items.values())
        miscounted = (self.phases - phases) + (phases - self.phases)
        self._users, self.phases = truth, phases
        return len(wrong) + miscounted.total()

    def admit(self, item: Item) -> Tracked | None:
        """Track a popped item; None when it is open already (its lease lapsed, it came again)."""
        if item.id in self._items:
            return None
        return self._add(Entry(item=item, phase=Phase.LEASED))

    async def adopt(self) -> list[Tracked]:
        """Track what earlier lives left open, oldest first."""
        entries = await self._journal.entries()
        self.adopted += len(entries)
        return [self._add(entry) for entry in entries]

    async def restore(self, entry: Entry) -> Tracked | None:
        """Track what an earlier life left on a backend and not here; None: it is open already."""
        if entry.item.id in self._items:
            return None
        tracked = self._add(entry)
        self.adopted += 1
        await self._journal.write(entry)
        return tracked

    async def move(
        self,
        tracked: Tracked,
        to: Phase,
        *,
        handle: RunHandle | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        """Change the item's phase; the journal has it before this returns."""
        entry, before = tracked.entry, tracked.standing
        launched = moment_now() if handle is not None else entry.launched
        tracked.entry = entry.with_event(
            to.value,
            phase=move(entry.phase, to),
            handle=handle or entry.handle,
            outcome=outcome or entry.outcome,
            launched=launched,
            stop_requested=tracked.stop.is_set(),
        )
        self._left_phase(tracked, entry.phase)
        tracked.detail = ""
        tracked.held_up = False
        self._index(before, tracked.standing)
        await self._journal.write(tracked.entry)
        self.launched += to is Phase.RUNNING and entry.phase is Phase.LAUNCHING
        log.info("item moved", phase=to.value)

    def hold_up(self, tracked: Tracked, *, held_up: bool) -> None:
        """Its backend does not answer, or answers again: what it waits with changes."""
        if tracked.held_up == held_up or tracked.entry.phase not in _MAY_BE_HELD_UP:
            return
        before = tracked.standing
        tracked.held_up = held_up
        self._index(before, tracked.standing)

    async def request_stop(self, tracked: Tracked, *, by_operator: bool = False) -> bool:
        """The run's user, or the agent's operator, wants it to stop; remembered across lives.

        False once the outcome is known: the item may be forgotten by now, and must stay so.
        """
        if tracked.entry.phase in (Phase.REPORTING, Phase.DONE):
            return False
        event = "cancelled by the operator" if by_operator else "stop requested"
        cancelled = by_operator or tracked.entry.cancelled
        tracked.entry = tracked.entry.with_event(event, stop_requested=True, cancelled=cancelled)
        tracked.stop.set()
        await self._journal.write(tracked.entry)
        return True

    async def done(self, tracked: Tracked, *, reason: str) -> None:
        """The item is done: its slot is free again."""
        move(tracked.entry.phase, Phase.DONE)
        await self._journal.forget(tracked.item.id)
        if self._items.pop(tracked.item.id, None) is not None:
            self._left_phase(tracked, tracked.entry.phase)
            self._index(tracked.standing, None)
        self.ended[reason] += 1
        log.info("item done", reason=reason)

    def _left_phase(self, tracked: Tracked, phase: Phase) -> None:
        now = anyio.current_time()
        if phase.value not in self.durations:
            self.durations[phase.value] = Durations()
        self.durations[phase.value].add(now - tracked.since)
        tracked.since = now

    def _add(self, entry: Entry) -> Tracked:
        tracked = Tracked(entry)
        self._items[entry.item.id] = tracked
        self._index(None, tracked.standing)
        return tracked

    def _index(self, before: _Standing | None, after: _Standing | None) -> None:
        for standing, change in ((before, -1), (after, 1)):
            if standing is not None:
                self.phases[standing.item.queue, standing.phase] += change
        if before and after and _kind_of(before) == _kind_of(after):
            return
        old, new = _used_by(before), _used_by(after)
        for use in old.keys() - new.keys():
            self._users[use].discard(old[use])
            if not self._users[use]:
                del self._users[use]
        for use in new.keys() - old.keys():
            self._users[use].add(new[use])
        if old.keys() != new.keys():
            self._changed.notify()


def uses_of(item: Item, phase: Phase, held_up: bool = False) -> Iterator[Use]:
    """All that an open item takes a part of: the one place that says so.

    A scheduler waits for the items that it pushes, so it must not hold what they need. Neither must
    one that its backend holds up: it only keeps more of its queue from being taken.
    """
    if phase not in HOLDS_SLOT:
        yield Use(Kind.REPORTS)
        return
    yield Use(Kind.RUN, item.run_id)
    if phase in NOT_LAUNCHED:
        yield Use(Kind.WAITING, item.queue)
        if not held_up:
            yield Use(Kind.WAITING)
    if item.spec.scheduler:
        yield Use(Kind.SCHEDULERS)
    else:
        yield Use(Kind.JOBS)
        yield Use(Kind.QUEUE, item.queue)
        yield Use(Kind.TARGET, item.spec.resource)


def _kind_of(standing: _Standing) -> tuple[bool, bool, bool]:
    """All that makes a difference in what the same item uses."""
    return standing.phase in HOLDS_SLOT, standing.phase in NOT_LAUNCHED, standing.held_up


def _used_by(standing: _Standing | None) -> dict[Use, ItemId]:
    if standing is None:
        return {}
    return dict.fromkeys(uses_of(*standing), standing.item.id)
