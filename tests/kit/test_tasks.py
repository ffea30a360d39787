"""Work that an event cuts short."""

import anyio
import pytest

from launch_async.kit.tasks import unless_set

pytestmark = pytest.mark.anyio


async def give() -> int:
    await anyio.lowlevel.checkpoint()
    return 7


async def test_work_that_ends_first_gives_its_answer():
    assert await unless_set(anyio.Event(), give) == 7


async def test_an_event_cancels_the_work():
    event = anyio.Event()
    event.set()
    with anyio.fail_after(5):
        assert await unless_set(event, anyio.sleep_forever) is None


async def test_an_error_comes_as_it_is_and_not_in_a_group():
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await unless_set(anyio.Event(), fail)


async def test_a_cancellation_from_outside_is_not_swallowed():
    with anyio.move_on_after(0.01) as scope:
        await unless_set(anyio.Event(), anyio.sleep_forever)
    assert scope.cancelled_caught
