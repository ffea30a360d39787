"""A value that expires: who fetches it, when, and what an outage does to it."""

import anyio
import pytest

from launch_async.kit.renewed import Renewed

pytestmark = pytest.mark.anyio


class Source:
    """Gives numbers that live for 100 s of a clock that the test moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.fetched = 0
        self.is_down = False
        self.go_on = anyio.Event()
        self.go_on.set()

    async def fetch(self) -> tuple[int, float]:
        self.fetched += 1
        await self.go_on.wait()
        if self.is_down:
            msg = "down"
            raise OSError(msg)
        return self.fetched, 100.0

    def renewed(self) -> Renewed[int]:
        return Renewed(self.fetch, now=lambda: self.time)


async def test_it_is_fetched_once_and_again_before_it_expires():
    source = Source()
    value = source.renewed()
    assert [await value.get(), await value.get()] == [1, 1]
    source.time = 74.0
    assert await value.get() == 1
    source.time = 76.0
    assert await value.get() == 2


async def test_all_who_ask_at_once_get_the_same():
    source = Source()
    value = source.renewed()
    source.go_on = anyio.Event()
    got: list[int] = []

    async def ask() -> None:
        got.append(await value.get())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        source.go_on.set()
    assert got == [1] * 20
    assert source.fetched == 1


async def test_a_failed_renewal_is_no_loss_while_the_old_value_holds():
    source = Source()
    value = source.renewed()
    await value.get()
    source.is_down = True
    source.time = 80.0
    assert await value.get() == 1
    assert await value.get() == 1
    assert source.fetched == 2  # not at each use, while it is down
    source.time = 101.0
    with pytest.raises(OSError, match="down"):
        await value.get()
    source.is_down = False
    assert await value.get() == 4


async def test_a_value_that_was_refused_is_replaced_once():
    source = Source()
    value = source.renewed()
    assert await value.get() == 1
    value.forget(1)
    assert await value.get() == 2
    value.forget(1)
    assert await value.get() == 2


async def test_a_refused_value_does_not_come_back_when_there_is_no_other():
    source = Source()
    value = source.renewed()
    refused = await value.get()
    source.is_down = True
    value.forget(refused)
    with pytest.raises(OSError, match="down"):
        await value.get()


async def test_an_asker_who_leaves_does_not_take_the_others_answer_along():
    source = Source()
    value = source.renewed()
    source.go_on = anyio.Event()
    got: list[int] = []

    async def ask() -> None:
        got.append(await value.get())

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as leaving:
            async with anyio.create_task_group() as first:
                first.start_soon(value.get)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                leaving.cancel()
        source.go_on.set()
    assert got == [2]
