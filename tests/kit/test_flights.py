"""Flights: one piece of work for all, ended when nobody wants it any more."""

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from launch_async.kit.flights import Flights

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running() -> AsyncIterator[Flights[int]]:
    flights = Flights[int]("flights")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flights.run)
        await anyio.wait_all_tasks_blocked()
        yield flights
        tasks.cancel_scope.cancel()


async def test_many_who_ask_for_the_same_share_one_piece_of_work():
    calls, go, got = 0, anyio.Event(), list[int]()

    async def work() -> int:
        nonlocal calls
        calls += 1
        await go.wait()
        return 7

    async with running() as flights:

        async def ask() -> None:
            got.append(await flights.get("a", work))

        async with anyio.create_task_group() as askers:
            for _ in range(20):
                askers.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            go.set()
        assert (calls, got, len(flights)) == (1, [7] * 20, 0)
        await flights.get("a", work)
        assert calls == 2


async def test_other_keys_are_other_work():
    async def give(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return number

    async with running() as flights:
        assert await flights.get("a", lambda: give(1)) == 1
        assert await flights.get("b", lambda: give(2)) == 2


async def test_an_error_goes_to_all_who_wait_and_not_to_later_ones():
    go, told = anyio.Event(), list[str]()

    async def fail() -> int:
        await go.wait()
        msg = "no"
        raise ValueError(msg)

    async def well() -> int:
        await anyio.lowlevel.checkpoint()
        return 1

    async with running() as flights:

        async def ask() -> None:
            with pytest.raises(ValueError, match="no"):
                await flights.get("a", fail)
            told.append("told")

        async with anyio.create_task_group() as askers:
            for _ in range(3):
                askers.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            go.set()
        assert len(told) == 3
        assert await flights.get("a", well) == 1


async def test_the_last_who_leaves_ends_the_work_and_not_one_before():
    ended = anyio.Event()

    async def work() -> int:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        return 0

    async with running() as flights, anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope() for _ in range(3)]

        async def ask(scope: anyio.CancelScope) -> None:
            with scope:
                await flights.get("a", work)

        for scope in scopes:
            tasks.start_soon(ask, scope)
        await anyio.wait_all_tasks_blocked()
        for scope in scopes[:2]:
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert not ended.is_set()
        scopes[2].cancel()
        with anyio.fail_after(5):
            await ended.wait()
        assert len(flights) == 0


async def test_who_asks_while_abandoned_work_winds_down_gets_work_of_its_own():
    winding_down, go = anyio.Event(), anyio.Event()

    async def slow_to_end() -> int:
        try:
            await anyio.sleep_forever()
        finally:
            winding_down.set()
            with anyio.CancelScope(shield=True):
                await go.wait()
        return 0

    async def quick() -> int:
        await anyio.lowlevel.checkpoint()
        return 5

    async with running() as flights:
        with anyio.move_on_after(0.01):
            await flights.get("a", slow_to_end)
        await winding_down.wait()
        assert await flights.get("a", quick) == 5
        go.set()


async def test_who_asks_before_it_runs_waits_for_it():
    async def quick() -> int:
        await anyio.lowlevel.checkpoint()
        return 5

    flights, got = Flights[int]("flights"), list[int]()

    async def ask() -> None:
        got.append(await flights.get("a", quick))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert got == []
        tasks.start_soon(flights.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert got == [5]


async def test_work_that_is_cut_off_is_no_result_and_begins_anew():
    calls, go, got = 0, anyio.Event(), list[int]()

    async def work() -> int:
        nonlocal calls
        calls += 1
        await go.wait()
        return calls

    flights = Flights[int]("flights")

    async def ask() -> None:
        got.append(await flights.get("a", work))

    async with anyio.create_task_group() as askers:
        async with anyio.create_task_group() as first:
            first.start_soon(flights.run)
            for _ in range(3):
                askers.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert (calls, got, len(flights)) == (1, [], 0)
        async with anyio.create_task_group() as second:
            second.start_soon(flights.run)
            await anyio.wait_all_tasks_blocked()
            go.set()
            await anyio.wait_all_tasks_blocked()
            second.cancel_scope.cancel()
    assert (calls, got) == (2, [2, 2, 2])


async def test_a_shared_error_does_not_grow_with_each_who_hears_it():
    async def fail() -> int:
        await anyio.lowlevel.checkpoint()
        msg = "no"
        raise ValueError(msg)

    lengths = list[int]()

    async with running() as flights:

        async def ask() -> None:
            try:
                await flights.get("a", fail)
            except ValueError as error:
                lengths.append(len(traceback.extract_tb(error.__traceback__)))

        async with anyio.create_task_group() as askers:
            for _ in range(10):
                askers.start_soon(ask)
    assert len(set(lengths)) == 1
