"""What a blocked event loop leaves behind: a figure, a flag and the name of who blocks it."""

import threading
import time

import anyio
import pytest
from structlog.testing import capture_logs

from launch_async.kit.lag import LoopLag

pytestmark = pytest.mark.anyio

WITHIN_SECONDS = 20.0


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


async def until_ticked(lag: LoopLag) -> None:
    ticks = len(lag._samples)
    with anyio.fail_after(WITHIN_SECONDS):
        while len(lag._samples) <= ticks:
            await anyio.sleep(0.002)


async def plant(lag: LoopLag) -> None:
    block_until_seen(lag)


def block_until_seen(lag: LoopLag) -> None:
    """A blocking call, planted; its end is the watchdog's alarm, else a limit."""
    end = time.monotonic() + WITHIN_SECONDS
    while not lag.wedged and time.monotonic() < end:
        time.sleep(0.005)


async def blocked(lag: LoopLag) -> list[dict]:
    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lag.run)
            await until_ticked(lag)
            async with anyio.create_task_group() as planted:
                planted.start_soon(plant, lag, name="item planted")
            await until_ticked(lag)
            tasks.cancel_scope.cancel()
    return list(logs)


async def test_a_blocked_loop_is_logged_with_its_task_and_stack():
    lag = LoopLag(interval_seconds=0.01, limit_seconds=0.1)
    alarm, recovery = await blocked(lag)
    assert (alarm["event"], alarm["task"]) == ("event loop is blocked", "item planted")
    assert "in block_until_seen" in alarm["stack"]
    assert alarm["seconds"] > 0.1
    assert recovery["event"] == "event loop runs again"
    assert recovery["blocked_seconds"] > 0.1


async def test_a_blocked_loop_is_wedged_until_it_runs_again_and_stays_in_the_figures():
    lag = LoopLag(interval_seconds=0.01, limit_seconds=0.1)
    await blocked(lag)
    assert not lag.wedged
    assert lag.blocks >= 1  # on a busy machine others block it too
    p99, worst = lag.window()
    assert lag.worst_seconds == worst > 0.1
    assert 0 <= p99 <= worst


async def test_a_free_loop_is_not_wedged():
    lag = LoopLag(interval_seconds=0.01, limit_seconds=5.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lag.run)
        for _ in range(5):
            await until_ticked(lag)
        tasks.cancel_scope.cancel()
    assert (lag.wedged, lag.blocks) == (False, 0)


async def test_the_window_is_bounded():
    lag = LoopLag()
    for _ in range(1000):
        lag._tick(time.monotonic())
    assert len(lag._samples) < 1000


async def test_the_watchdog_ends_with_its_loop():
    lag = LoopLag(interval_seconds=0.01, limit_seconds=0.1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lag.run)
        await until_ticked(lag)
        watchdogs = [thread for thread in threading.enumerate() if thread.name == "loop watchdog"]
        tasks.cancel_scope.cancel()
    assert watchdogs
    with anyio.fail_after(WITHIN_SECONDS):
        while any(thread.is_alive() for thread in watchdogs):
            await anyio.sleep(0.01)
