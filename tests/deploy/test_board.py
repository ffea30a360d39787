"""The Grafana board shows metrics that there are, by labels that they have."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from launch_async.admin.metrics import registry_of
from launch_async.kit.lag import LoopLag
from launch_async.ports.backends import BackendView
from launch_async.ports.status import AgentView, DurationsView, LimitView, QueueView

BOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "launch-agents.json"
METRIC = re.compile(r"\b((?:launch_agent|process|python)_[a-z0-9_]+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
SCRAPED = {"instance", "job", "le"}
"""Labels that Prometheus itself adds, and a histogram's."""


class Source:
    def view(self, *, items: int = 0) -> AgentView:
        del items
        queue = QueueView(name="q", max_jobs=1, items=0, polls={}, seconds_since_poll=1.0)
        return AgentView(
            name="a",
            identity="i",
            state="polling",
            max_jobs=1,
            queues=(queue,),
            items=(),
            launched=0,
            adopted=0,
            ended={},
            poll_seconds=1.0,
            seconds_since_beat=1.0,
            limits=(LimitView(name="jobs", limit=1, used=0),),
            durations={"running": DurationsView((0,) * 14, 0.0)},
        )


def backends() -> tuple[BackendView, ...]:
    view = BackendView(
        name="pops",
        breaker=0,
        trips=0,
        requests={("pop", "2xx"): 1},
        retries=0,
        throttled=0,
        refused=0,
        wait_seconds=0.0,
        in_flight=0,
        places=1,
    )
    return (view,)


@pytest.fixture(scope="module")
def labels_of() -> dict[str, set[str]]:
    """Names of labels by name of sample, of all that an agent shows."""
    found: dict[str, set[str]] = defaultdict(set)
    text = generate_latest(registry_of(Source(), LoopLag(), backends)).decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found


def queries() -> list[tuple[str, str]]:
    board = json.loads(BOARD.read_text())
    found: list[tuple[str, str]] = []
    for panel in board["panels"]:
        found += [(panel["title"], target["expr"]) for target in panel.get("targets", ())]
    for variable in board["templating"]["list"]:
        query: Any = variable["query"]
        if isinstance(query, dict):
            found.append((variable["name"], query["query"]))
    return found


@pytest.mark.parametrize(("title", "query"), queries(), ids=lambda value: str(value)[:40])
def test_what_the_board_asks_for_is_there(title: str, query: str, labels_of: dict[str, set[str]]):
    asked = METRIC.findall(query)
    assert asked
    for name, selector in asked:
        assert name in labels_of
        selected = set(re.findall(r"(\w+)(?:=~|!=|=)", selector))
        assert selected <= labels_of[name] | SCRAPED, title
    for names in GROUPED.findall(query):
        known = set.union(*(labels_of[name] for name, _ in asked)) | SCRAPED
        assert {name.strip() for name in names.split(",")} <= known, title


def test_the_board_shows_all_that_the_agent_has_of_its_own(labels_of: dict[str, set[str]]):
    asked = {name for _, query in queries() for name, _ in METRIC.findall(query)}
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in asked}
    own = {
        re.sub(r"_(bucket|count|sum|created)$", "", name)
        for name in labels_of
        if name.startswith("launch_agent_") and not name.endswith("_created")
    }
    assert own - families == {
        "launch_agent_loop_lag_seconds",
        "launch_agent_loop_lag_worst_seconds",
    }


def test_panels_do_not_overlap_and_have_numbers_of_their_own():
    panels = json.loads(BOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
