"""A bucket never gives more tokens than its rate, a service's wish or its burst allow.

Only lower bounds are asserted on time: a busy machine may always take longer.
"""

import anyio
import pytest

from launch_async.kit.ratelimit import Throttled, TokenBucket

pytestmark = pytest.mark.anyio

AT_ONCE_SECONDS = 0.0
SLACK_SECONDS = 0.005
"""The loop's clock is coarser than the sums."""


async def seconds_for(bucket: TokenBucket, count: int, *, at_once: bool = True) -> float:
    began = anyio.current_time()
    if at_once:
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(bucket.take)
    else:
        for _ in range(count):
            await bucket.take()
    return anyio.current_time() - began + SLACK_SECONDS


@pytest.mark.parametrize("at_once", [True, False])
async def test_beyond_its_burst_calls_are_kept_to_the_rate(at_once: bool):
    bucket = TokenBucket(per_second=100, burst=10, max_wait_seconds=60)
    assert await seconds_for(bucket, 30, at_once=at_once) >= 0.2


async def test_a_burst_waits_for_nothing():
    bucket = TokenBucket(per_second=0.01, burst=10, max_wait_seconds=AT_ONCE_SECONDS)
    await seconds_for(bucket, 10)


async def test_a_rest_fills_a_bucket_to_its_burst_and_no_further():
    bucket = TokenBucket(per_second=20, burst=2, max_wait_seconds=AT_ONCE_SECONDS)
    await anyio.sleep(0.2)
    await seconds_for(bucket, 2)
    with pytest.raises(Throttled):
        await bucket.take()


async def test_who_would_wait_too_long_hears_how_long_and_takes_nothing():
    bucket = TokenBucket(per_second=10, burst=1, max_wait_seconds=0.05)
    await bucket.take()
    for _ in range(50):
        with pytest.raises(Throttled) as caught:
            await bucket.take()
    assert 0.05 < caught.value.seconds <= 0.1


async def test_a_hold_keeps_back_those_who_wait_already():
    bucket = TokenBucket(per_second=50, burst=1, max_wait_seconds=60)
    await bucket.take()
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bucket.take)
        await anyio.lowlevel.checkpoint()
        bucket.hold(0.2)
    assert anyio.current_time() - began + SLACK_SECONDS >= 0.2


async def test_after_a_hold_there_is_no_burst():
    bucket = TokenBucket(per_second=50, burst=100, max_wait_seconds=60)
    bucket.hold(0.1)
    assert await seconds_for(bucket, 6) >= 0.1 + 5 / 50


async def test_a_hold_that_is_too_long_to_wait_for_is_told():
    bucket = TokenBucket(per_second=50, burst=100, max_wait_seconds=1)
    bucket.hold(100)
    with pytest.raises(Throttled):
        await bucket.take()


async def test_a_shorter_hold_does_not_end_a_longer_one():
    bucket = TokenBucket(per_second=50, burst=100, max_wait_seconds=1)
    bucket.hold(100)
    bucket.hold(0)
    with pytest.raises(Throttled):
        await bucket.take()


async def test_no_more_calls_are_made_at_once_than_the_service_has_left():
    bucket = TokenBucket(per_second=10, burst=100, max_wait_seconds=AT_ONCE_SECONDS)
    bucket.keep_to(3)
    for _ in range(3):
        await bucket.take()
    with pytest.raises(Throttled):
        await bucket.take()


async def test_what_a_service_has_left_gives_no_tokens():
    bucket = TokenBucket(per_second=0.01, burst=2, max_wait_seconds=AT_ONCE_SECONDS)
    bucket.keep_to(50)
    await seconds_for(bucket, 2)
    with pytest.raises(Throttled):
        await bucket.take()


async def test_a_hold_after_another_does_not_prolong_a_wait_beyond_its_limit():
    bucket = TokenBucket(per_second=50, burst=1, max_wait_seconds=0.3)
    bucket.hold(0.2)

    async def hold_on() -> None:
        while True:
            await anyio.sleep(0.05)
            bucket.hold(0.2)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold_on)
            with pytest.raises(Throttled):
                await bucket.take()
            tasks.cancel_scope.cancel()
