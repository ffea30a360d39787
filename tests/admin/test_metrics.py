"""Metrics that do not grow, however many items there are and however often they are scraped."""

import socket
import threading

import aiohttp
import anyio
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from launch_async.admin import scrapes
from launch_async.domain.phase import Phase
from launch_async.kit.durations import BOUNDS_SECONDS, Durations
from launch_async.ports.status import DurationsView, LimitView
from operated_agent import OperatedAgent, a_backend, a_queue, a_view, address, endpoint, get

pytestmark = pytest.mark.anyio

STORM = 50
SLOW_READERS = 5


def series(text: str) -> dict[str, float]:
    return {
        f"{sample.name} {msgspec.json.encode(dict(sorted(sample.labels.items()))).decode()}": (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def shown(agent: OperatedAgent, **given: object) -> dict[str, float]:
    async with endpoint(agent, **given) as session:
        status, text = await get(session, "/metrics")
    assert status == 200
    return series(text)


async def test_ten_thousand_items_add_no_series():
    agent = OperatedAgent()
    before = await shown(agent)
    durations = {phase.value: DurationsView((1,) * 14, 0.5) for phase in Phase}
    agent.now = a_view(
        max_jobs=-1,
        phases={
            "q": {"running": 9_000},
            "of before": {"running": 600},
            "other one": {"leased": 400},
        },
        ended={"succeeded": 5, "exit_code": 7, "of another version": 1},
        durations=durations,
    )
    after = await shown(agent)
    assert set(after) == set(before)
    assert after['launch_agent_items {"phase":"running","queue":"q"}'] == 9_000
    assert after['launch_agent_ended_total {"reason":"exit_code"}'] == 7
    assert after['launch_agent_ended_total {"reason":"other"}'] == 1


async def test_lost_runs_are_counted_by_what_was_done_and_by_nothing_else():
    agent = OperatedAgent()
    before = await shown(agent)
    agent.now = a_view(lost_runs={"recovered": 3, "ended": 2, "of another version": 1})
    after = await shown(agent)
    assert set(after) == set(before)
    assert {name: after[name] for name in after if "lost_runs_total" in name} == {
        'launch_agent_lost_runs_total {"done":"recovered"}': 3,
        'launch_agent_lost_runs_total {"done":"removed"}': 0,
        'launch_agent_lost_runs_total {"done":"ended"}': 2,
    }


async def test_items_of_queues_that_are_not_polled_any_more_are_counted_together():
    agent = OperatedAgent()
    agent.now = a_view(phases={"a": {"running": 2}, "b": {"running": 3}})
    assert (await shown(agent))['launch_agent_items {"phase":"running","queue":"other"}'] == 5


async def test_limits_queues_and_backends_are_shown():
    agent = OperatedAgent()
    agent.now = a_view(
        limits=(LimitView(name="target/local-container", limit=8, used=3),),
        queues=(a_queue(paused=True, max_jobs=2, interval_seconds=7.5),),
        drift=1,
    )
    found = await shown(agent, backends=lambda: (a_backend("pops", breaker=1, trips=4),))
    expected = {
        'launch_agent_slots {"kind":"target/local-container"}': 8,
        'launch_agent_slots_used {"kind":"target/local-container"}': 3,
        "launch_agent_slot_drift_total {}": 1,
        'launch_agent_queue_paused {"queue":"q"}': 1,
        'launch_agent_queue_max_jobs {"queue":"q"}': 2,
        'launch_agent_queue_poll_interval_seconds {"queue":"q"}': 7.5,
        'launch_agent_breaker_state {"backend":"pops"}': 1,
        'launch_agent_breaker_trips_total {"backend":"pops"}': 4,
        'launch_agent_api_requests_total {"api":"pops","code":"2xx","verb":"get"}': 3,
    }
    assert expected.items() <= found.items()


async def test_how_long_phases_last_is_counted_in_few_buckets():
    durations = Durations()
    for seconds in (0.2, 3.0, 100_000.0):
        durations.add(seconds)
    agent = OperatedAgent()
    taken = DurationsView(durations.buckets(), durations.sum_seconds)
    agent.now = a_view(durations={"preparing": taken})
    found = await shown(agent)
    buckets = {name: value for name, value in found.items() if "_phase_seconds_bucket" in name}
    assert len(buckets) == 14 * (len(Phase) - 1)
    assert len(BOUNDS_SECONDS) + 1 == 14
    name = 'launch_agent_phase_seconds_bucket {"le":"%s","phase":"preparing"}'
    assert [found[name % le] for le in ("0.1", "0.5", "5.0", "43200.0", "+Inf")] == [0, 1, 2, 2, 3]
    assert found['launch_agent_phase_seconds_count {"phase":"preparing"}'] == 3


async def test_a_storm_of_scrapes_renders_once_a_second(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scrapes, "FRESH_SECONDS", 3600.0)
    agent = OperatedAgent()
    async with endpoint(agent) as session, anyio.create_task_group() as group:
        first = await get(session, "/metrics")
        renderings = len(agent.calls)
        for _ in range(STORM):
            group.start_soon(get, session, "/metrics")
    assert first[0] == 200
    assert len(agent.calls) == renderings


async def test_a_rendering_that_takes_long_keeps_nobody_else_waiting(
    monkeypatch: pytest.MonkeyPatch,
):
    released = threading.Event()

    def slowly(_: object) -> bytes:
        assert released.wait(20)
        return b"# done\n"

    monkeypatch.setattr(scrapes, "choose_encoder", lambda _: (slowly, "text/plain"))
    agent = OperatedAgent()
    answers: list[tuple[int, str]] = []

    async def scrape(session: aiohttp.ClientSession) -> None:
        answers.append(await get(session, "/metrics"))

    async with endpoint(agent) as session, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(scrape, session)
        with anyio.fail_after(20):
            while not agent.calls:
                await anyio.sleep(0.005)
        assert (await get(session, "/livez"))[0] == 200
        released.set()
    assert answers == [(200, "# done\n")] * 3
    assert agent.calls == [("view", "0")], "all of them wait for one rendering"


async def test_openmetrics_is_given_to_who_asks():
    async with endpoint(OperatedAgent()) as session:
        _, text = await get(session, "/metrics", Accept="application/openmetrics-text")
    assert text.endswith("# EOF\n")


async def test_what_a_scraper_asks_for_makes_no_rendering_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(scrapes, "FRESH_SECONDS", 3600.0)
    agent = OperatedAgent()
    async with endpoint(agent) as session:
        for version in range(STORM):
            accept = f"application/openmetrics-text; version=1.0.{version}"
            status, text = await get(session, "/metrics", Accept=accept)
            assert (status, text.endswith("# EOF\n")) == (200, True)
        assert (await get(session, "/metrics", Accept="text/plain; version=x"))[0] == 200
    assert agent.calls == [("view", "0")] * 2


async def test_readers_who_never_read_keep_nobody_else_waiting():
    agent = OperatedAgent()
    async with endpoint(agent) as session:
        idle = [socket.create_connection(address(session)) for _ in range(SLOW_READERS)]
        try:
            for connection in idle:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 40)
            assert (await get(session, "/livez"))[0] == 200
            assert (await get(session, "/metrics"))[0] == 200
        finally:
            for connection in idle:
                connection.close()
