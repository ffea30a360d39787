"""Lanes against a real HTTP server that is slow, sick, silent or asks to be left alone.

What takes 20 s in the world takes 2 s at most here: waits are settings of the lanes.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from aiohttp import web
from scripted_api import ScriptedApi, SortedApi, answering, scripted_api, whole

from launch_async.domain.errors import Unavailable
from launch_async.domain.secret import Secret
from launch_async.ports.backends import BackendView
from launch_async.wire import operations, requeue_operations
from launch_async.wire.lanes import OTHER, PLACES, VERBS, Lane, Lanes, verb_of
from launch_async.wire.transport import Transport

pytestmark = pytest.mark.anyio

WITHIN_SECONDS = 20.0
OPEN_SECONDS = 0.2
POP = "mutation popFromRunQueue($q0: String!) { p0: popFromRunQueue }"


@pytest.fixture
async def api(anyio_backend: str) -> AsyncGenerator[SortedApi]:
    async with scripted_api(api=SortedApi()) as running:
        yield running


@asynccontextmanager
async def client(
    api: ScriptedApi,
    *,
    max_tries: int = 1,
    call_timeout_seconds: float = 30.0,
    **limits: Any,
) -> AsyncGenerator[Transport]:
    lanes = Lanes.guarded(**({"open_seconds": OPEN_SECONDS} | limits))
    async with Transport.open(
        base_url=api.url,
        api_key=Secret("k" * 40),
        max_tries=max_tries,
        call_timeout_seconds=call_timeout_seconds,
        lanes=lanes,
    ) as transport:
        with anyio.fail_after(WITHIN_SECONDS):
            yield transport


async def pop(transport: Transport, queue: str = "q") -> None:
    await transport.execute(POP, {"q0": queue})


async def beat(transport: Transport) -> None:
    await transport.execute(operations.AGENT, {"agentId": "a"})


async def ack(transport: Transport, item: str = "i") -> None:
    await transport.execute(operations.ACK, {"itemId": item})


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await anyio.sleep(0.002)


async def refused(call: Callable[..., Awaitable[None]], *arguments: Any) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await call(*arguments)
    return caught.value


async def trip(transport: Transport) -> None:
    for number in range(5):
        await refused(pop, transport, f"queue {number}")
    assert view(transport, Lane.POPS).breaker == 1


def view(transport: Transport, lane: Lane) -> BackendView:
    return next(shown for shown in transport.lanes.backends() if shown.name == lane)


def test_every_operation_of_the_agent_has_a_name_for_metrics():
    documents = [
        text
        for module in (operations, requeue_operations)
        for name, text in vars(module).items()
        if name.isupper() and ("query " in str(text) or "mutation " in str(text))
    ]
    documents += [POP, operations.look_up_runs(3)]
    assert {verb_of(document) for document in documents} == set(VERBS)
    assert verb_of("query Mine { viewer { id } }") == verb_of("nonsense") == OTHER


@pytest.mark.parametrize("call", [beat, ack])
async def test_hanging_pops_keep_nothing_else_waiting(
    api: SortedApi, call: Callable[[Transport], Awaitable[None]]
):
    api.by_verb["popFromRunQueue"] = api.hang
    async with (
        client(api, burst=1000, per_second=1000) as transport,
        anyio.create_task_group() as pops,
    ):
        for number in range(500):
            pops.start_soon(pop, transport, f"queue {number}")
        await until(lambda: api.waiting == PLACES[Lane.POPS])
        for _ in range(10):
            await call(transport)
        assert api.waiting == view(transport, Lane.POPS).in_flight == PLACES[Lane.POPS]
        pops.cancel_scope.cancel()


async def test_a_storm_of_pops_is_kept_to_the_rate_and_does_not_silence_the_pulse(api: SortedApi):
    async with client(api, per_second=100, burst=10) as transport:
        began = anyio.current_time()
        async with anyio.create_task_group() as pops:
            for number in range(60):
                pops.start_soon(pop, transport, f"queue {number}")
            await until(lambda: len(api.verbs) >= 10)
            await beat(transport)
            assert len(api.verbs) < 60
    pops_seen = [
        moment
        for moment, verb in zip(api.arrivals, api.verbs, strict=True)
        if verb == "popFromRunQueue"
    ]
    for number, moment in enumerate(pops_seen):
        assert moment - began + 0.01 >= (number + 1 - 10) / 100
    assert view(transport, Lane.POPS).wait_seconds > 0


async def test_a_sick_lane_fails_fast_with_the_time_of_the_next_trial(api: SortedApi):
    api.by_verb["popFromRunQueue"] = answering(500)
    async with client(api, open_seconds=60.0) as transport:
        await trip(transport)
        seen = len(api.verbs)
        error = await refused(pop, transport)
        assert error.retry_after_seconds is not None
        assert 0 < error.retry_after_seconds <= 60
        assert len(api.verbs) == seen
        shown = view(transport, Lane.POPS)
        assert (shown.trips, shown.refused) == (1, 1)
        assert shown.requests == {("popFromRunQueue", "5xx"): 5}


async def test_a_sick_lane_leaves_the_others_alone(api: SortedApi):
    api.by_verb["popFromRunQueue"] = answering(503)
    async with client(api, open_seconds=60.0) as transport:
        await trip(transport)
        await beat(transport)
        await ack(transport)


async def test_one_sick_queue_leaves_the_other_queues_alone(api: SortedApi):
    """Even while it alone is asked: the others have nothing to pop for, and pop later."""
    api.by_verb["popFromRunQueue"] = answering(500)
    async with client(api, open_seconds=60.0) as transport:
        for _ in range(20):
            await refused(pop, transport, "sick")
        del api.by_verb["popFromRunQueue"]
        await pop(transport, "healthy")
        assert view(transport, Lane.POPS).trips == 0


async def test_pops_resume_with_the_first_trial_after_an_outage(api: SortedApi):
    api.by_verb["popFromRunQueue"] = answering(502)
    async with client(api) as transport:
        await trip(transport)
        del api.by_verb["popFromRunQueue"]
        error = await refused(pop, transport)
        assert error.retry_after_seconds is not None
        await anyio.sleep(error.retry_after_seconds)
        await pop(transport)
        assert view(transport, Lane.POPS).breaker == 0
        await pop(transport, "another")


async def test_calls_that_hang_do_not_keep_the_trial_waiting(api: SortedApi):
    """All places are held by calls without an answer; a connection that died looks the same."""
    async with client(api, burst=1000, per_second=1000) as transport:
        api.by_verb["popFromRunQueue"] = api.hang
        async with anyio.create_task_group() as pops:
            for number in range(PLACES[Lane.POPS]):
                pops.start_soon(pop, transport, f"queue {number}")
            await until(lambda: api.waiting == PLACES[Lane.POPS])
            bulkhead = transport.lanes[Lane.POPS]
            for number in range(5):
                bulkhead.failed("popFromRunQueue", None, caller=number, reason="timed out")
            del api.by_verb["popFromRunQueue"]
            error = await refused(pop, transport)
            assert error.retry_after_seconds is not None
            await anyio.sleep(error.retry_after_seconds)
            await pop(transport)
            assert view(transport, Lane.POPS).in_flight == PLACES[Lane.POPS]
            pops.cancel_scope.cancel()


async def test_queues_that_hang_do_not_open_the_breaker_while_others_are_answered(api: SortedApi):
    async def hang_or_answer(request: web.Request) -> web.StreamResponse:
        if "hangs" in await request.text():
            return await api.hang(request)
        return await answering()(request)

    api.by_verb["popFromRunQueue"] = hang_or_answer
    async with client(api, call_timeout_seconds=0.5) as transport:
        async with anyio.create_task_group() as pops:
            for number in range(8):
                pops.start_soon(refused, pop, transport, f"hangs {number}")
            await until(lambda: api.waiting == 8)
            await pop(transport, "healthy")
        shown = view(transport, Lane.POPS)
        assert shown.requests["popFromRunQueue", "none"] == 8
        assert shown.trips == 0


async def test_a_server_without_answers_opens_the_breaker(api: SortedApi):
    api.by_verb["popFromRunQueue"] = api.hang
    async with client(api, call_timeout_seconds=0.05) as transport:
        await trip(transport)
        assert view(transport, Lane.POPS).requests == {("popFromRunQueue", "none"): 5}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
async def test_a_backend_that_says_no_is_not_sick(api: SortedApi, status: int):
    api.by_verb["popFromRunQueue"] = answering(status, Retry_After="0")
    async with client(api) as transport:
        for number in range(20):
            with pytest.raises(Exception, match=r"answered|refused|no"):
                await pop(transport, f"queue {number}")
        shown = view(transport, Lane.POPS)
        assert (shown.breaker, shown.trips) == (0, 0)
        assert shown.requests == {("popFromRunQueue", "4xx"): 20}


async def test_a_429_holds_back_all_callers_for_as_long_as_it_asks(api: SortedApi):
    api.by_verb["popFromRunQueue"] = answering(429, Retry_After="1")
    async with client(api) as transport:
        began = anyio.current_time()
        await refused(pop, transport, "a")
        del api.by_verb["popFromRunQueue"]
        async with anyio.create_task_group() as pops:
            for queue in "bcd":
                pops.start_soon(pop, transport, queue)
            await beat(transport)
        assert len(api.verbs) == 5
        pops_seen = [
            moment
            for moment, verb in zip(api.arrivals, api.verbs, strict=True)
            if verb == "popFromRunQueue"
        ]
        assert min(pops_seen[1:]) - began >= 1.0
        assert view(transport, Lane.POPS).throttled == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_an_answer_that_is_of_use_keeps_its_status_and_its_wish_for_quiet(
    api: SortedApi, status: int
):
    """A gateway's word counts, though the service behind it did what was asked."""
    item = {"runQueueItemId": "i"}
    errors = [{"message": "later", "path": ["p1"]}]
    api.by_verb["popFromRunQueue"] = whole(
        status, {"data": {"p0": item, "p1": None}, "errors": errors}, Retry_After="1"
    )
    async with client(api) as transport:
        began = anyio.current_time()
        parts = await transport.execute_in_parts(POP, {"q0": "q"})
        assert (parts.data["p0"], parts.errors) == (item, {"p1": "later"})
        del api.by_verb["popFromRunQueue"]
        await pop(transport)
        assert anyio.current_time() - began >= 0.9
        shown = view(transport, Lane.POPS)
        assert shown.requests["popFromRunQueue", f"{status // 100}xx"] == 1
        assert shown.throttled == (status == 429)


async def test_an_answer_of_use_with_a_429_holds_without_a_time_too(api: SortedApi):
    api.by_verb["popFromRunQueue"] = whole(429, {"data": {"p0": None}})
    async with client(api, max_wait_seconds=0.0) as transport:
        await transport.execute_in_parts(POP, {"q0": "q"})
        error = await refused(pop, transport)
        assert error.retry_after_seconds is not None
        assert 0 < error.retry_after_seconds <= 1
        assert len(api.verbs) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"p0": None}, "errors": [{"message": "slow down"}]},
        {"data": {"p0": None}, "errors": [{"message": "slow down", "path": 0}]},
        {"data": {"p0": None}, "errors": "slow down"},
        {"data": {}},
        {"data": {"p0": None}, "errors": 7},
        b'{"data": {"p0": null',
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_data_whose_errors_name_no_part_counts_as_its_status_says(
    api: SortedApi, status: int, body: object
):
    api.by_verb["popFromRunQueue"] = whole(status, body, Retry_After="120")
    async with client(api) as transport:
        with pytest.raises(Unavailable, match=f"answered {status}") as caught:
            await transport.execute_in_parts(POP, {"q0": "q"})
        assert caught.value.retry_after_seconds == 120
        later = (await refused(pop, transport)).retry_after_seconds
        assert later is not None
        assert 100 < later <= 120
        assert len(api.verbs) == 1


async def test_a_503_that_names_a_time_holds_back_all_callers(api: SortedApi):
    api.by_verb["popFromRunQueue"] = answering(503, Retry_After="120")
    async with client(api) as transport:
        await refused(pop, transport, "a")
        later = (await refused(pop, transport, "b")).retry_after_seconds
        assert later is not None
        assert 100 < later <= 120
        assert len(api.verbs) == 1


async def test_a_429_without_a_time_holds_longer_each_time(api: SortedApi):
    api.by_verb["popFromRunQueue"] = answering(429)
    async with client(api, max_wait_seconds=0.0) as transport:
        bulkhead = transport.lanes[Lane.POPS]
        for _ in range(3):
            bulkhead.throttled("popFromRunQueue", None)
        error = await refused(pop, transport)
        assert error.retry_after_seconds is not None
        assert 2 < error.retry_after_seconds <= 4
        assert api.verbs == []


async def test_a_pause_that_is_too_long_to_wait_for_is_told_to_the_caller(api: SortedApi):
    api.by_verb["popFromRunQueue"] = answering(429, Retry_After="120")
    async with client(api, max_tries=3) as transport:
        assert (await refused(pop, transport)).retry_after_seconds == 120
        later = (await refused(pop, transport)).retry_after_seconds
        assert later is not None
        assert 100 < later <= 121
        assert len(api.verbs) == 1


@pytest.mark.parametrize("prefix", ["RateLimit", "X-RateLimit"])
async def test_a_service_with_no_calls_left_gets_none(api: SortedApi, prefix: str):
    headers = {f"{prefix}-Remaining": "0", f"{prefix}-Reset": "1"}
    api.by_verb["popFromRunQueue"] = answering(200, **headers)
    async with client(api) as transport:
        await pop(transport)
        began = anyio.current_time()
        await pop(transport)
        assert anyio.current_time() - began >= 0.9


async def test_a_service_with_three_calls_left_gets_no_more_at_once(api: SortedApi):
    headers = {"RateLimit-Remaining": "3", "RateLimit-Reset": "60"}
    api.by_verb["popFromRunQueue"] = answering(200, **headers)
    async with client(api, per_second=0.1, burst=100, max_wait_seconds=0.0) as transport:
        await pop(transport)
        api.by_verb["popFromRunQueue"] = answering(200)
        for _ in range(3):
            await pop(transport)
        await refused(pop, transport)


async def test_repetitions_are_counted(api: SortedApi):
    api.by_verb["ackRunQueueItem"] = answering(500)
    async with client(api, max_tries=2) as transport:
        await refused(ack, transport)
        assert view(transport, Lane.CLAIMS).retries == 1
        assert view(transport, Lane.CLAIMS).trips == 0
