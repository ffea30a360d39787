"""A latch gives results through, or cuts short what runs under it."""

import anyio
import pytest

from launch_async.kit.latch import Latch

pytestmark = pytest.mark.anyio


async def test_work_that_ends_first_gives_its_result():
    async def give() -> int:
        return 7

    assert await Latch().unless_set(give) == 7


async def test_work_is_cancelled_when_the_latch_is_set():
    latch = Latch()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)

        async def set_soon() -> None:
            await anyio.lowlevel.checkpoint()
            latch.set()

        group.start_soon(set_soon)
        with anyio.fail_after(5):
            assert await latch.unless_set(anyio.sleep_forever) is None
        group.cancel_scope.cancel()


async def test_all_that_run_under_it_are_cancelled_and_nothing_else():
    latch, cut = Latch(), list[int]()

    async def under(number: int) -> None:
        assert await latch.unless_set(anyio.sleep_forever) is None
        cut.append(number)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(under, number)
            await anyio.wait_all_tasks_blocked()
            latch.set()
            latch.set()
    assert sorted(cut) == [0, 1, 2]


async def test_a_latch_that_is_set_already_lets_nothing_wait():
    latch = Latch()
    latch.set()
    with anyio.fail_after(5):
        assert await latch.unless_set(anyio.sleep_forever) is None
        await latch.wait()


async def test_errors_come_as_they_are():
    async def fail() -> None:
        msg = "broken"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="broken"):
        await Latch().unless_set(fail)


async def test_cancelling_from_outside_is_passed_on():
    with anyio.move_on_after(0.01) as scope:
        await Latch().unless_set(anyio.sleep_forever)
    assert scope.cancelled_caught
