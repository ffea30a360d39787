"""The table of open items: what slots are derived from, and the only writer of the journal."""

from collections import Counter
from collections.abc import Iterator

import anyio
import msgspec
import structlog

from launch_async.domain.ids import ItemId, QueueRef
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase, move
from launch_async.domain.run import RunHandle
from launch_async.kit.clock import unix_now
from launch_async.ports.journal import Entry, Journal

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Tracked:
    """One open item in memory; its `entry` is what the journal holds."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.since = anyio.current_time()
        self.detail = ""
        """What the item is doing within its phase, for people."""
        self.stop = anyio.Event()
        """Set when the run's user asks for it to be stopped."""
        if entry.stop_requested:
            self.stop.set()

    @property
    def item(self) -> Item:
        """The item itself."""
        return self.entry.item


class Table:
    """All open items by id. An item is in it from its pop until it is done."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._items: dict[ItemId, Tracked] = {}
        self._changed = anyio.Condition()
        self.launched = 0
        self.adopted = 0
        self.ended: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Tracked]:
        return iter(tuple(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items

    @property
    def changed(self) -> anyio.Condition:
        """Notified when an item leaves the table."""
        return self._changed

    def count(self, queue: QueueRef) -> int:
        """Open items of this queue."""
        return sum(1 for tracked in self._items.values() if tracked.item.queue == queue)

    def busy(self, tracked: Tracked) -> bool:
        """Whether another open item has this one's run id; two runs cannot be one.

        In another project too: backends name what they run after the run id alone.
        """
        run_id = tracked.item.run_id
        return any(one.item.run_id == run_id for one in self._items.values() if one is not tracked)

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
        entry = tracked.entry
        launched_at = unix_now() if handle is not None else entry.launched_at
        tracked.entry = msgspec.structs.replace(
            entry,
            phase=move(entry.phase, to),
            handle=handle or entry.handle,
            outcome=outcome or entry.outcome,
            launched_at=launched_at,
            stop_requested=tracked.stop.is_set(),
        )
        tracked.since = anyio.current_time()
        tracked.detail = ""
        await self._journal.write(tracked.entry)
        self.launched += to is Phase.RUNNING and entry.phase is Phase.LAUNCHING
        log.info("item moved", phase=to.value)

    async def request_stop(self, tracked: Tracked) -> None:
        """The run's user wants it to stop; remembered across lives.

        Too late once the outcome is known: the item may be forgotten by now, and must stay so.
        """
        if tracked.entry.phase in (Phase.REPORTING, Phase.DONE):
            return
        tracked.stop.set()
        tracked.entry = msgspec.structs.replace(tracked.entry, stop_requested=True)
        await self._journal.write(tracked.entry)

    async def done(self, tracked: Tracked, *, reason: str) -> None:
        """The item is done: its slot is free again."""
        move(tracked.entry.phase, Phase.DONE)
        await self._journal.forget(tracked.item.id)
        self._items.pop(tracked.item.id, None)
        self.ended[reason] += 1
        log.info("item done", reason=reason)
        async with self._changed:
            self._changed.notify_all()

    def _add(self, entry: Entry) -> Tracked:
        tracked = Tracked(entry)
        self._items[entry.item.id] = tracked
        return tracked
