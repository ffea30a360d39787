"""Explain: why an item or a queue is where it is, what holds it, and what comes next."""

from collections.abc import Iterator

import anyio

from launch_async.agent.admission import Admission
from launch_async.agent.polled import PolledQueue
from launch_async.agent.table import Kind, Table, Tracked, Use
from launch_async.agent.tools import Tools
from launch_async.agent.views import age, seconds_in_phase
from launch_async.domain.phase import Phase
from launch_async.ports.control import Explanation


def explain_item(tracked: Tracked, tools: Tools) -> Explanation:
    """Why this open item is where it is."""
    entry = tracked.entry
    return Explanation(
        subject=f"item {entry.item.id}",
        state=entry.phase.value,
        seconds=round(seconds_in_phase(tracked, anyio.current_time()), 3),
        reasons=tuple(_holding(tracked, tools)),
        next=(_NEXT_OF_STOPPED if tracked.stop.is_set() else _NEXT)[entry.phase],
    )


def explain_queue(
    queue: PolledQueue, admission: Admission, table: Table, *, agent: str
) -> Explanation:
    """Why nothing, or not more, is taken from this queue; `agent` is its agent's state."""
    now = anyio.current_time()
    missing = admission.missing(queue.ref)
    idle = _IDLE.get(agent)
    since = age(queue.last_answer, now)
    if idle is not None:
        state, reason, then = idle
        missing, since = [reason], None
    elif admission.is_paused(queue.ref):
        state, then, since = "paused", "nothing is taken until it is resumed", None
    elif missing:
        state, then = "waiting for room", "it is looked into when an open item ends or is launched"
    else:
        state, then = "polled", f"the next look is in {max(0.0, queue.due_at - now):.1f} s"
    if queue.fault and state in ("waiting for room", "polled"):
        state = "not answering"
    faults = [f"the last look failed: {queue.fault}"] if queue.fault else []
    held = table.used(Use(Kind.QUEUE, queue.ref))
    return Explanation(
        subject=f"queue {queue.ref.name} with {held} running or under way",
        state=state,
        seconds=since,
        reasons=(*missing, *faults),
        next=then,
    )


def _holding(tracked: Tracked, tools: Tools) -> Iterator[str]:
    item, phase = tracked.item, tracked.entry.phase
    table = tools.table
    if phase is Phase.LEASED and table.busy(tracked):
        others = table.users(Use(Kind.RUN, item.run_id)) - {item.id}
        yield f"its run id {item.run_id} is in use by the item {', '.join(sorted(others))}"
    builds = tools.builds
    if phase is Phase.PREPARING and builds.statistics().tasks_waiting:
        total = int(builds.total_tokens)
        yield f"agent.builds is {total} and {builds.borrowed_tokens} are in use"
    if tracked.detail:
        yield tracked.detail


_NEXT = {
    Phase.LEASED: "the service confirms the claim; then the job is resolved",
    Phase.CLAIMING: "the service confirms the claim; then the job is resolved",
    Phase.PREPARING: "its job is resolved and built; then it is launched",
    Phase.LAUNCHING: "the backend starts the run",
    Phase.RUNNING: "its run ends",
    Phase.REPORTING: "the service is told its end",
    Phase.DONE: "nothing",
}
_NEXT_OF_STOPPED = _NEXT | {
    Phase.LEASED: "once it is claimed it is failed, as its stop was requested",
    Phase.CLAIMING: "once it is claimed it is failed, as its stop was requested",
    Phase.PREPARING: "it is failed, as its stop was requested",
    Phase.LAUNCHING: "it is ended, as its stop was requested",
    Phase.RUNNING: "its run is ended after stopped_run_timeout, as its stop was requested",
}
_IDLE = {
    "starting": (
        "not polled yet",
        "the agent has not registered yet",
        "it is looked into once the control plane has answered",
    ),
    "stopping": ("not polled", "the agent is stopping", "nothing is taken from it any more"),
}
"""Of an agent that polls no queue, by its state: the queue's state, why, and what comes next."""
