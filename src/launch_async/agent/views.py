"""What the agent shows of itself: plain values drawn from its parts at one moment."""

import heapq
from collections.abc import Iterator

import anyio

from launch_async.agent.admission import Admission
from launch_async.agent.poller import Poller
from launch_async.agent.table import Kind, Table, Tracked, Use
from launch_async.domain.phase import Phase
from launch_async.kit.clock import seconds_since
from launch_async.ports.status import DurationsView, ItemPage, ItemView, LimitView, QueueView


def limit_views(admission: Admission, builds: anyio.CapacityLimiter) -> tuple[LimitView, ...]:
    """Every limit over all queues."""
    total, used = int(builds.total_tokens), builds.borrowed_tokens
    return (*admission.views(), LimitView(name="builds", limit=total, used=used))


def queue_views(poller: Poller, admission: Admission, table: Table) -> Iterator[QueueView]:
    """Each polled queue."""
    now = anyio.current_time()
    held = admission.held()
    by_hand = admission.paused_by_hand()
    for ref, queue in poller.queues.items():
        limit = admission.limits.queues[ref]
        yield QueueView(
            name=ref.name,
            max_jobs=limit.max_jobs,
            items=table.used(Use(Kind.QUEUE, ref)),
            polls=dict(queue.polls),
            seconds_since_poll=age(queue.last_answer, now),
            weight=limit.weight,
            paused=admission.is_paused(ref),
            paused_by_hand=ref in by_hand,
            interval_seconds=round(queue.interval_seconds, 3),
            missing=tuple(admission.missing(ref, held)),
            fault=queue.fault,
        )


def item_view(tracked: Tracked, now: float) -> ItemView:
    """One open item."""
    item = tracked.item
    return ItemView(
        id=item.id,
        queue=item.queue.name,
        run=str(item.run),
        phase=tracked.entry.phase.value,
        detail=_detail(tracked),
        seconds_in_phase=round(seconds_in_phase(tracked, now), 3),
    )


def seconds_in_phase(tracked: Tracked, now: float) -> float:
    """How long; a run counts from its launch, which an earlier life may have seen."""
    launched = tracked.entry.launched
    if tracked.entry.phase is Phase.RUNNING and launched is not None:
        return seconds_since(launched)
    return now - tracked.since


def _detail(tracked: Tracked) -> str:
    """What the item is doing; of a run that was asked to stop, its backend has no better word."""
    if tracked.stop.is_set() and tracked.entry.phase is Phase.RUNNING:
        return "stop requested"
    return tracked.detail


def phase_counts(table: Table) -> dict[str, dict[str, int]]:
    """Open items by queue and phase."""
    counted: dict[str, dict[str, int]] = {}
    for (queue, phase), count in table.phases.items():
        if count:
            counted.setdefault(queue.name, {})[phase.value] = count
    return counted


def item_page(
    table: Table, *, queue: str | None = None, phase: str | None = None, most: int
) -> ItemPage:
    """Open items of this queue and phase, those first that are longest in their phase."""
    matching = [
        tracked
        for tracked in table
        if (queue is None or tracked.item.queue.name == queue)
        and (phase is None or tracked.entry.phase.value == phase)
    ]
    now = anyio.current_time()
    shown = heapq.nlargest(most, matching, key=lambda tracked: seconds_in_phase(tracked, now))
    items = tuple(item_view(tracked, now) for tracked in shown)
    return ItemPage(open=len(table), matching=len(matching), items=items)


def duration_views(table: Table) -> dict[str, DurationsView]:
    """How long items were in each phase."""
    return {
        phase: DurationsView(durations.buckets(), durations.sum_seconds)
        for phase, durations in table.durations.items()
    }


def age(moment: float | None, now: float) -> float | None:
    """Seconds since a moment, if there was one."""
    return None if moment is None else round(now - moment, 3)
