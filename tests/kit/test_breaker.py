"""When a breaker opens, whom it lets through and what closes it."""

import anyio
import pytest

from launch_async.kit.breaker import Breaker, BreakerState

pytestmark = pytest.mark.anyio

CALLERS = ("a", "b", "c")


def opened(*, open_seconds: float = 60.0) -> Breaker:
    breaker = Breaker(failures=3, open_seconds=open_seconds)
    assert [breaker.failed(caller) for caller in CALLERS] == [False, False, True]
    return breaker


async def test_failures_in_a_row_of_several_callers_open_it():
    breaker = opened()
    assert (breaker.state, breaker.trips) == (BreakerState.OPEN, 1)
    assert 0 < breaker.admit() <= 60.0


async def test_one_callers_failures_never_open_it():
    breaker = Breaker(failures=3, open_seconds=60.0)
    assert not any(breaker.failed("a") for _ in range(100))
    assert breaker.admit() == 0


async def test_an_answer_in_between_begins_the_row_anew():
    breaker = Breaker(failures=3, open_seconds=60.0)
    for _ in range(10):
        breaker.failed("a")
        breaker.failed("b")
        assert not breaker.answered()
    assert breaker.state is BreakerState.CLOSED


async def test_callers_of_an_earlier_row_do_not_count():
    breaker = Breaker(failures=3, open_seconds=60.0)
    breaker.failed("a")
    breaker.failed("b")
    breaker.answered()
    assert not any(breaker.failed("b") for _ in range(10))


async def test_after_its_time_one_call_is_let_through_at_a_time():
    breaker = opened(open_seconds=0.05)
    await anyio.sleep(breaker.wait_seconds)
    assert [breaker.admit() == 0 for _ in range(3)] == [True, False, False]
    assert breaker.state is BreakerState.HALF_OPEN


async def test_a_trial_that_hangs_does_not_keep_the_next_one_back():
    breaker = opened(open_seconds=0.02)
    for _ in range(3):
        await anyio.sleep(breaker.wait_seconds)
        assert breaker.admit() == 0


async def test_a_trial_that_fails_opens_it_again_and_is_no_new_trip():
    breaker = opened(open_seconds=0.02)
    await anyio.sleep(breaker.wait_seconds)
    breaker.admit()
    assert not breaker.failed("a")
    assert (breaker.state, breaker.trips) == (BreakerState.OPEN, 1)


async def test_failures_that_come_late_do_not_put_off_the_trial():
    breaker = opened()
    wait = breaker.wait_seconds
    breaker.failed("late")
    assert breaker.wait_seconds <= wait


async def test_any_answer_closes_it():
    breaker = opened()
    assert breaker.answered()
    assert (breaker.state, breaker.admit()) == (BreakerState.CLOSED, 0.0)


async def test_failures_of_calls_that_were_overtaken_by_an_answer_do_not_count():
    breaker = Breaker(failures=3, open_seconds=60.0)
    began = anyio.current_time()
    await anyio.sleep(0.01)
    breaker.answered()
    assert not any(breaker.failed(caller, began=began) for caller in (*CALLERS, *CALLERS))
    began = anyio.current_time()
    assert [breaker.failed(caller, began=began) for caller in CALLERS] == [False, False, True]
