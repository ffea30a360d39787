"""The admin endpoint over HTTP: what counts as alive and as ready, and metrics that do not grow."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import anyio
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from launch_async.admin.app import serving
from launch_async.admin.health import LoopLag, liveness, readiness
from launch_async.ports.status import AgentView, ItemView, QueueView

pytestmark = pytest.mark.anyio

replace = msgspec.structs.replace


def a_queue(name: str = "q", **changes: object) -> QueueView:
    queue = QueueView(name=name, max_jobs=-1, items=0, polls={"empty": 3}, seconds_since_poll=1.0)
    return replace(queue, **changes)


def a_view(**changes: object) -> AgentView:
    view = AgentView(
        name="agent-1",
        identity="i",
        state="polling",
        max_jobs=4,
        queues=(a_queue(),),
        items=(),
        launched=0,
        adopted=0,
        ended={},
        poll_seconds=5.0,
        seconds_since_beat=1.0,
    )
    return replace(view, **changes)


def an_item(number: int, **changes: object) -> ItemView:
    item = ItemView(
        id=f"item-{number}",
        queue="q",
        run=f"me/p/run{number}",
        phase="running",
        detail=f"detail {number}",
        seconds_in_phase=float(number),
    )
    return replace(item, **changes)


def complaints(view: AgentView) -> dict[str, str]:
    return {name: text for name, text in readiness(view).items() if text}


def test_a_polling_agent_is_ready():
    assert complaints(a_view()) == {}


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"name": ""}, "registered"),
        ({"state": "stopping"}, "polling"),
        ({"seconds_since_beat": 61.0}, "heartbeat"),
        ({"seconds_since_beat": None}, "heartbeat"),
        ({"queues": (a_queue(), a_queue("b", seconds_since_poll=31.0))}, "queue/b"),
        ({"queues": (a_queue(), a_queue("b", seconds_since_poll=None))}, "queue/b"),
    ],
)
def test_one_thing_that_is_not_well_is_named_alone(changes: dict[str, object], check: str):
    assert list(complaints(a_view(**changes))) == [check]


@pytest.mark.parametrize(
    "changes",
    [
        {"max_jobs": 1, "items": (an_item(1),)},
        {"queues": (a_queue(max_jobs=1, items=1, seconds_since_poll=3600.0),)},
        {"poll_seconds": 60.0},
    ],
)
def test_a_queue_that_has_no_reason_to_be_polled_is_well(changes: dict[str, object]):
    stale = tuple(
        replace(queue, seconds_since_poll=100.0)
        for queue in changes.get("queues", a_view().queues)  # type: ignore[attr-defined]
    )
    assert complaints(a_view(**(changes | {"queues": stale}))) == {}


def test_only_a_late_loop_is_not_alive():
    lag = LoopLag()
    assert not any(liveness(lag).values())
    lag.seconds = 6.0
    assert liveness(lag)["loop"] == "timers run 6.0 s late"


async def test_the_loops_delay_is_measured():
    lag = LoopLag()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lag.run)
        await anyio.sleep(0.6)
        tasks.cancel_scope.cancel()
    assert 0.0 <= lag.seconds < 5.0


class Source:
    def __init__(self) -> None:
        self.now = a_view()

    def view(self) -> AgentView:
        return self.now


@asynccontextmanager
async def endpoint(source: Source) -> AsyncGenerator[aiohttp.ClientSession]:
    async with (
        serving(source, host="127.0.0.1", port=0) as url,
        aiohttp.ClientSession(base_url=url) as session,
    ):
        yield session


async def get(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with session.get(path) as response:
        return response.status, await response.text()


async def test_probes_answer_for_machines_and_for_people():
    source = Source()
    async with endpoint(source) as session:
        assert await get(session, "/readyz") == (200, "ok\n")
        status, text = await get(session, "/readyz?verbose")
        assert (status, "[+]queue/q ok" in text) == (200, True)
        source.now = a_view(name="", state="starting")
        status, text = await get(session, "/readyz")
        assert status == 503
        assert "[-]registered not registered yet" in text
        assert (await get(session, "/readyz?exclude=registered"))[0] == 200
        for alive in ("/livez", "/healthz"):
            assert (await get(session, alive))[0] == 200


async def test_a_thousand_items_add_no_series():
    source = Source()
    async with endpoint(source) as session:
        before = series(await get(session, "/metrics"))
        reasons = {"succeeded": 5, "exit_code": 7, "of another version": 1}
        source.now = a_view(
            max_jobs=-1, items=tuple(an_item(number) for number in range(1000)), ended=reasons
        )
        after = series(await get(session, "/metrics"))
    assert set(after) == set(before)
    assert after['launch_agent_items{"phase": "running", "queue": "q"}'] == 1000
    assert after['launch_agent_ended_total{"reason": "exit_code"}'] == 7


async def test_items_of_a_queue_that_is_not_polled_any_more_are_counted():
    source = Source()
    source.now = a_view(items=(an_item(1), an_item(2, queue="old")))
    async with endpoint(source) as session:
        shown = series(await get(session, "/metrics"))
    assert shown['launch_agent_items{"phase": "running", "queue": "other"}'] == 1


async def test_the_status_is_the_whole_view():
    source = Source()
    source.now = a_view(items=(an_item(1),))
    async with endpoint(source) as session:
        _, text = await get(session, "/status")
    assert msgspec.json.decode(text, type=AgentView) == source.now


async def test_nothing_can_be_changed():
    async with endpoint(Source()) as session, session.post("/status") as response:
        assert response.status == 405


def series(answer: tuple[int, str]) -> dict[str, float]:
    status, text = answer
    assert status == 200
    return {
        sample.name
        + msgspec.json.encode(dict(sorted(sample.labels.items())))
        .decode()
        .replace('":"', '": "')
        .replace('","', '", "'): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
