"""Prometheus metrics, read from the agent's view at each rendering: nothing is counted twice.

Labels are queues that are polled, phases, reasons, limits and backends: all from closed lists. None
grows with items, runs or users, so 10,000 items add no series.
"""

from collections.abc import Callable, Iterator, Sequence
from platform import python_version

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric

from launch_async import __version__
from launch_async.domain.errors import Reason
from launch_async.domain.phase import Phase
from launch_async.kit.clock import unix_now
from launch_async.kit.durations import BOUNDS_SECONDS
from launch_async.kit.lag import LoopLag
from launch_async.ports.backends import BackendView
from launch_async.ports.status import AgentView, StatusSource

OTHER = "other"
"""Items of queues that an earlier life polled."""

OPEN = tuple(sorted(phase.value for phase in Phase if phase is not Phase.DONE))
REASONS = tuple(sorted({reason.value for reason in Reason} | {"succeeded", "let_go"}))
LOST_RUNS = ("recovered", "removed", "ended")
OUTCOMES = ("item", "empty", "error")
LE = (*(str(bound) for bound in BOUNDS_SECONDS), "+Inf")

Backends = Callable[[], Sequence[BackendView]]


class AgentCollector:
    """Turns views into metric families."""

    def __init__(self, source: StatusSource, lag: LoopLag, backends: Backends) -> None:
        self._source = source
        self._lag = lag
        self._backends = backends

    def collect(self) -> Iterator[Metric]:
        """One rendering."""
        view = self._source.view(items=0)
        yield from _self(standby=False)
        yield GaugeMetricFamily("launch_agent_max_jobs", "Limit of open items.", view.max_jobs)
        yield CounterMetricFamily("launch_agent_launched", "Runs launched.", view.launched)
        yield CounterMetricFamily("launch_agent_adopted", "Items adopted.", view.adopted)
        yield GaugeMetricFamily("launch_agent_orphans", "Runs without an item.", view.orphans)
        yield _lost_runs(view)
        yield from _lag(self._lag)
        yield _items(view)
        yield _ended(view)
        yield from _slots(view)
        yield _durations(view)
        yield from _queues(view)
        yield from _backend_families(self._backends())


class StandbyCollector:
    """Of an agent that waits to act: that it is there."""

    def collect(self) -> Iterator[Metric]:
        """As `AgentCollector.collect`."""
        yield from _self(standby=True)


def registry_of(source: StatusSource, lag: LoopLag, backends: Backends) -> CollectorRegistry:
    """A registry of its own, with the process' and Python's standard metrics."""
    return _registry_with(AgentCollector(source, lag, backends))


def standby_registry() -> CollectorRegistry:
    """As `registry_of`, of an agent that waits to act."""
    return _registry_with(StandbyCollector())


def _registry_with(collector: AgentCollector | StandbyCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(collector)  # pyright: ignore[reportArgumentType]
    return registry


def _self(*, standby: bool) -> Iterator[Metric]:
    build = {"version": __version__, "python": python_version()}
    yield InfoMetricFamily("launch_agent_build", "Version.", build)
    yield GaugeMetricFamily("launch_agent_standby", "1: another one acts.", int(standby))


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"launch_agent_{name}", text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"launch_agent_{name}", text, labels=labels)


def _lag(lag: LoopLag) -> Iterator[Metric]:
    yield GaugeMetricFamily("launch_agent_loop_lag_seconds", "Timers' delay.", lag.seconds)
    p99, worst = lag.window()
    yield GaugeMetricFamily("launch_agent_loop_lag_p99_seconds", "Of the last minute.", p99)
    yield GaugeMetricFamily("launch_agent_loop_lag_max_seconds", "Of the last minute.", worst)
    yield GaugeMetricFamily(
        "launch_agent_loop_lag_worst_seconds", "Worst delay since the start.", lag.worst_seconds
    )
    yield CounterMetricFamily(
        "launch_agent_loop_blocks", "How often the loop was blocked beyond its limit.", lag.blocks
    )


def _items(view: AgentView) -> Metric:
    family = _gauge("items", "Open items by queue and phase.", "queue", "phase")
    known = [queue.name for queue in view.queues]
    for name in known:
        for phase in OPEN:
            family.add_metric([name, phase], view.phases.get(name, {}).get(phase, 0))
    others = [phases for name, phases in view.phases.items() if name not in known]
    for phase in OPEN:
        family.add_metric([OTHER, phase], sum(phases.get(phase, 0) for phases in others))
    return family


def _ended(view: AgentView) -> Metric:
    family = _counter("ended", "Ended items.", "reason")
    for reason in REASONS:
        family.add_metric([reason], view.ended.get(reason, 0))
    unknown = sum(count for reason, count in view.ended.items() if reason not in REASONS)
    family.add_metric([OTHER], unknown)
    return family


def _lost_runs(view: AgentView) -> Metric:
    family = _counter("lost_runs", "Runs that the journal did not know, by what was done.", "done")
    for done in LOST_RUNS:
        family.add_metric([done], view.lost_runs.get(done, 0))
    return family


def _slots(view: AgentView) -> Iterator[Metric]:
    slots = _gauge("slots", "Each limit; -1: none.", "kind")
    used = _gauge("slots_used", "What is used of each limit.", "kind")
    for limit in view.limits:
        slots.add_metric([limit.name], limit.limit)
        used.add_metric([limit.name], limit.used)
    yield slots
    yield used
    yield CounterMetricFamily(
        "launch_agent_slot_drift", "Slots that an audit found wrongly counted.", view.drift
    )


def _durations(view: AgentView) -> Metric:
    family = HistogramMetricFamily(
        "launch_agent_phase_seconds", "How long items were in a phase.", labels=["phase"]
    )
    for phase in OPEN:
        taken = view.durations.get(phase)
        counts = taken.buckets if taken else (0,) * len(LE)
        buckets = list(zip(LE, map(float, counts), strict=True))
        family.add_metric([phase], buckets, taken.sum_seconds if taken else 0.0)
    return family


def _queues(view: AgentView) -> Iterator[Metric]:
    polls = _counter("queue_polls", "Looks into queues.", "queue", "outcome")
    last = _gauge("queue_last_poll_timestamp_seconds", "When it last answered.", "queue")
    interval = _gauge("queue_poll_interval_seconds", "Pause between looks now.", "queue")
    paused = _gauge("queue_paused", "1: nothing is taken from it.", "queue")
    limits = _gauge("queue_max_jobs", "Its own limit; -1: none.", "queue")
    now = unix_now()
    for queue in view.queues:
        for outcome in OUTCOMES:
            polls.add_metric([queue.name, outcome], queue.polls.get(outcome, 0))
        age = queue.seconds_since_poll
        last.add_metric([queue.name], 0.0 if age is None else now - age)
        interval.add_metric([queue.name], queue.interval_seconds)
        paused.add_metric([queue.name], float(queue.paused))
        limits.add_metric([queue.name], queue.max_jobs)
    yield from (polls, last, interval, paused, limits)


def _backend_families(backends: Sequence[BackendView]) -> Iterator[Metric]:
    requests = _counter("api_requests", "Answered calls.", "api", "verb", "code")
    retries = _counter("api_retries", "Calls made again.", "api")
    throttled = _counter("api_throttled", "Answers 429.", "api")
    refused = _counter("api_refused", "Calls that were held back.", "api")
    waited = _counter("api_limiter_wait_seconds", "Waited for a place or token.", "api")
    in_flight = _gauge("api_in_flight", "Calls under way.", "api")
    state = _gauge("breaker_state", "0 closed, 1 open, 2 half-open.", "backend")
    trips = _counter("breaker_trips", "How often it opened.", "backend")
    stale = _gauge("backend_stale", "1: its runs are not seen now.", "backend")
    for backend in backends:
        name = [backend.name]
        for (verb, code), count in backend.requests.items():
            requests.add_metric([backend.name, verb, code], count)
        retries.add_metric(name, backend.retries)
        throttled.add_metric(name, backend.throttled)
        refused.add_metric(name, backend.refused)
        waited.add_metric(name, backend.wait_seconds)
        in_flight.add_metric(name, backend.in_flight)
        state.add_metric(name, backend.breaker)
        trips.add_metric(name, backend.trips)
        stale.add_metric(name, float(bool(backend.stale)))
    yield from (requests, retries, throttled, refused, waited, in_flight, state, trips, stale)
