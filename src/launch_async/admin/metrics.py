"""Prometheus metrics, read from the agent's view at each scrape: nothing is counted twice.

No label grows with items, runs or users, so 10,000 items add no series.
"""

from collections import Counter as Counted
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from launch_async import __version__
from launch_async.admin.health import LoopLag
from launch_async.domain.errors import Reason
from launch_async.domain.phase import OPEN
from launch_async.ports.status import StatusSource

OTHER = "other"
"""Items of queues that an earlier life polled."""

REASONS = frozenset({reason.value for reason in Reason} | {"succeeded", "let_go"})


class AgentCollector:
    """Turns the agent's view into metric families."""

    def __init__(self, source: StatusSource, lag: LoopLag) -> None:
        self._source = source
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        view = self._source.view()
        yield InfoMetricFamily("launch_agent_build", "Version.", {"version": __version__})
        yield GaugeMetricFamily("launch_agent_max_jobs", "Limit of open items.", view.max_jobs)
        yield CounterMetricFamily("launch_agent_launched", "Runs launched.", view.launched)
        yield CounterMetricFamily("launch_agent_adopted", "Items adopted.", view.adopted)
        lag = self._lag
        yield GaugeMetricFamily("launch_agent_loop_lag_seconds", "Timers' delay.", lag.seconds)
        phases = GaugeMetricFamily(
            "launch_agent_items", "Open items by queue and phase.", labels=["queue", "phase"]
        )
        known = [queue.name for queue in view.queues]
        counted = Counted(
            (item.queue if item.queue in known else OTHER, item.phase) for item in view.items
        )
        for name in (*known, OTHER):
            for phase in sorted(OPEN):
                phases.add_metric([name, phase.value], counted[name, phase.value])
        yield phases
        ended = CounterMetricFamily("launch_agent_ended", "Ended items.", labels=["reason"])
        for reason in sorted(REASONS):
            ended.add_metric([reason], view.ended.get(reason, 0))
        yield ended
        polls = CounterMetricFamily(
            "launch_agent_queue_polls", "Looks into queues.", labels=["queue", "outcome"]
        )
        for queue in view.queues:
            for outcome in ("item", "empty", "error"):
                polls.add_metric([queue.name, outcome], queue.polls.get(outcome, 0))
        yield polls


def registry_of(source: StatusSource, lag: LoopLag) -> CollectorRegistry:
    """A registry of its own, with the process' and Python's standard metrics."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(AgentCollector(source, lag))  # pyright: ignore[reportArgumentType]
    return registry
