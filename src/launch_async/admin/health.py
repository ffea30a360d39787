"""Whether the agent lives and whether it is ready, check by check.

`/livez` looks at the event loop alone: a broken dependency must not restart the agent. `/readyz`
looks at progress: registered, not stopping, service answering, every queue with room polled.
"""

from collections.abc import Mapping

import anyio

from launch_async.ports.status import AgentView

MISSED_INTERVALS = 3
MIN_WINDOW_SECONDS = 30.0
BEAT_WINDOW_SECONDS = 60.0
MAX_LAG_SECONDS = 5.0
LAG_INTERVAL_SECONDS = 0.5


class LoopLag:
    """How late the event loop runs its timers."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.worst_seconds = 0.0
        """Since the start."""

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = anyio.current_time() + LAG_INTERVAL_SECONDS
            await anyio.sleep(LAG_INTERVAL_SECONDS)
            self.seconds = max(0.0, anyio.current_time() - due)
            self.worst_seconds = max(self.worst_seconds, self.seconds)


def liveness(lag: LoopLag) -> Mapping[str, str]:
    """Each check's complaint by name; empty text is fine."""
    slow = lag.seconds > MAX_LAG_SECONDS
    return {"loop": f"timers run {lag.seconds:.1f} s late" if slow else ""}


def readiness(view: AgentView) -> Mapping[str, str]:
    """As `liveness`."""
    checks = {
        "registered": "" if view.name else "not registered yet",
        "polling": "the agent is stopping" if view.state == "stopping" else "",
        "heartbeat": _stale(view.seconds_since_beat, BEAT_WINDOW_SECONDS),
    }
    window = max(MISSED_INTERVALS * view.poll_seconds, MIN_WINDOW_SECONDS)
    total_full = view.max_jobs != -1 and len(view.items) >= view.max_jobs
    for queue in view.queues:
        full = total_full or (queue.max_jobs != -1 and queue.items >= queue.max_jobs)
        age = queue.seconds_since_poll
        checks[f"queue/{queue.name}"] = "" if full else _stale(age, window)
    return checks


def _stale(age_seconds: float | None, window_seconds: float) -> str:
    if age_seconds is None:
        return "no answer yet"
    return f"last answer {age_seconds:.0f} s ago" if age_seconds > window_seconds else ""
