"""file_stream requests may be split, repeated and reordered on their way: nothing hangs on it."""

import json
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_harness import USERNAME, Server

from launch_async.server.filestream import receive
from launch_async.server.store.texts import storable

pytestmark = pytest.mark.anyio

HISTORY = "wandb-history.jsonl"
EVENTS = "wandb-events.jsonl"
HISTORY_ROWS = """select line, step, body from run_history join runs on runs.id = run_id
    where name = :name order by line"""
EVENT_ROWS = """select line, body from run_events join runs on runs.id = run_id
    where name = :name order by line"""
RUN_ROW = """select history_lines, event_lines, last_step, history_keys, state
    from runs where name = :name"""

LINES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"_step": st.integers(0, 50)},
            optional={"loss": st.integers(-3, 3) | st.floats(), "deep": st.just({"er": "text"})},
        ).map(json.dumps),
        st.sampled_from(
            ["", "no json", "[1]", '{"a":"\\u0000"}', '{"a":"\\ud800"}', "\0", "é" * 9]
        ),
    ),
    max_size=12,
)


def chunk(file: str, first: int, lines: list[str]) -> dict[str, Any]:
    return {"files": {file: {"offset": first, "content": lines}}}


class Delivery:
    """A run's lines, and the requests that bring them."""

    def __init__(
        self, history: list[str], events: list[str], requests: list[dict[str, Any]]
    ) -> None:
        self.history = history
        self.whole = [chunk(HISTORY, 0, history), chunk(EVENTS, 0, events)]
        self.requests = requests

    def __repr__(self) -> str:
        return json.dumps([self.whole, self.requests])


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    history, events = draw(LINES), draw(LINES)
    requests: list[dict[str, Any]] = [{}]
    for file, lines in ((HISTORY, history), (EVENTS, events)):
        cuts = sorted({0, len(lines), *draw(st.lists(st.integers(0, len(lines)), max_size=4))})
        requests += [chunk(file, start, lines[start:end]) for start, end in pairwise(cuts)]
    again = draw(st.lists(st.sampled_from(requests), max_size=4))
    overlap = draw(st.integers(0, len(history)))
    again.append(chunk(HISTORY, overlap, history[overlap:]))
    return Delivery(history, events, draw(st.permutations([*requests, *again])))


async def deliver(server: Server, requests: list[dict[str, Any]]) -> list[Any]:
    """Send requests of a new run; return what became of it."""
    name = f"run-{uuid4().hex}"
    for request in requests:
        body = json.dumps(request).encode()
        await receive(server.request(), body, entity=USERNAME, project="p", run_name=name)
    return [await server.rows(sql, name=name) for sql in (HISTORY_ROWS, EVENT_ROWS, RUN_ROW)]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(delivery=deliveries())
async def test_any_split_repeat_and_order_of_requests_gives_the_same_history(
    server: Server, delivery: Delivery
) -> None:
    found = await deliver(server, delivery.requests)
    assert found == await deliver(server, delivery.whole)
    assert [row.body for row in found[0]] == [storable(line) for line in delivery.history]
