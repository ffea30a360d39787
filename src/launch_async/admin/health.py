"""Whether the agent lives and whether it is ready, check by check.

`/livez` looks at the event loop alone: a broken dependency must not restart the agent. While the
loop is blocked it fails by giving no answer; the probe's time limit is what notices. `/readyz`
looks at progress: items of earlier lives taken over, registered, not stopping, the service and the
backends that items need answering, every queue with room polled.
"""

from collections.abc import Mapping, Sequence

from launch_async.kit.lag import LoopLag
from launch_async.ports.backends import BackendView
from launch_async.ports.status import AgentView, QueueView

MISSED_INTERVALS = 3
MIN_WINDOW_SECONDS = 30.0
BEAT_WINDOW_SECONDS = 60.0
MAX_LAG_SECONDS = 5.0
BREAKER_OPEN = 1


def liveness(lag: LoopLag) -> Mapping[str, str]:
    """Each check's complaint by name; empty text is fine."""
    slow = lag.seconds > MAX_LAG_SECONDS
    return {"loop": f"timers run {lag.seconds:.1f} s late" if slow else ""}


def readiness(
    view: AgentView, lag: LoopLag, backends: Sequence[BackendView] = ()
) -> Mapping[str, str]:
    """As `liveness`."""
    checks = {
        **liveness(lag),
        "store": view.unfit,
        "recovery": "" if view.recovered else "items of earlier lives are being taken over",
        "registered": "" if view.name else "not registered yet",
        "polling": "the agent is stopping" if view.state == "stopping" else "",
        "heartbeat": _stale(view.seconds_since_beat, BEAT_WINDOW_SECONDS),
    }
    for queue in view.queues:
        checks[f"queue/{queue.name}"] = silence(queue, poll_seconds=view.poll_seconds)
    for backend in backends:
        checks[f"backend/{backend.name}"] = _trouble(backend) if backend.needed else ""
    return checks


def silence(queue: QueueView, *, poll_seconds: float) -> str:
    """That a queue which is looked into has not answered for long; empty when it has."""
    interval = max(poll_seconds, queue.interval_seconds)
    window = max(MISSED_INTERVALS * interval, MIN_WINDOW_SECONDS)
    return "" if queue.missing else _stale(queue.seconds_since_poll, window)


def _trouble(backend: BackendView) -> str:
    if backend.stale:
        return f"its runs are not seen: {backend.stale}"
    return "failing; asked again now and then" if backend.breaker == BREAKER_OPEN else ""


def _stale(age_seconds: float | None, window_seconds: float) -> str:
    if age_seconds is None:
        return "no answer yet"
    return f"last answer {age_seconds:.0f} s ago" if age_seconds > window_seconds else ""
