"""Short transactions that share a trip to SQLite are transactions of their own all the same."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    opened = Store.connect(f"sqlite:///{tmp_path}/s.db")
    async with opened.write() as connection:
        await connection.execute(text("create table t (a integer primary key)"))
    yield opened
    await opened.close()


async def put(store: Store, number: int) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("insert into t values (:a)"), {"a": number})

    await store.transact(work)


async def numbers(store: Store) -> list[int]:
    async def work(connection: AsyncConnection) -> list[int]:
        return list((await connection.execute(text("select a from t order by a"))).scalars())

    return await store.lookup(work)


async def test_many_at_once_are_all_kept(store: Store) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(300):
            tasks.start_soon(put, store, number)
    assert await numbers(store) == list(range(300))


async def test_one_that_fails_undoes_itself_and_no_other(store: Store) -> None:
    failed: list[int] = []

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("insert into t values (1000)"))
        await connection.execute(text("insert into t values (1)"))

    async def fail() -> None:
        with pytest.raises(IntegrityError):
            await store.transact(work)
        failed.append(1)

    await put(store, 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put, store, 2)
        tasks.start_soon(fail)
        tasks.start_soon(put, store, 3)
    assert failed
    assert await numbers(store) == [1, 2, 3]


async def test_what_a_lookup_writes_is_undone(store: Store) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("insert into t values (1)"))

    await store.lookup(work)
    assert await numbers(store) == []


async def test_transactions_of_both_kinds_take_turns(store: Store) -> None:
    async with anyio.create_task_group() as tasks, store.write() as connection:
        tasks.start_soon(put, store, 2)
        await anyio.wait_all_tasks_blocked()
        await connection.execute(text("insert into t values (1)"))
        assert await numbers(store) == []
    assert await numbers(store) == [1, 2]


async def test_one_that_awaits_something_else_is_refused_and_undone(store: Store) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("insert into t values (1)"))
        await asyncio.sleep(0)

    with pytest.raises(TypeError, match="awaits nothing but its connection"):
        await store.transact(work)
    assert await numbers(store) == []


async def test_a_cancelled_asker_takes_no_other_along(store: Store) -> None:
    async def put_cancelled() -> None:
        with anyio.move_on_after(0):
            await put(store, 1)

    async with anyio.create_task_group() as tasks, store.write():
        tasks.start_soon(put_cancelled)
        tasks.start_soon(put, store, 2)
        await anyio.wait_all_tasks_blocked()
    assert await numbers(store) == [1, 2]


async def test_without_a_thread_the_asker_is_refused_and_nobody_waits_for_ever(
    store: Store,
) -> None:
    with no_more_threads(), pytest.raises(RuntimeError, match="thread"):
        await put(store, 1)
    with anyio.fail_after(10):
        await put(store, 2)
        async with store.write() as connection:
            await connection.execute(text("insert into t values (3)"))
        assert await numbers(store) == [2, 3]


async def test_a_writer_who_ends_meanwhile_hears_nothing_of_that(store: Store) -> None:
    refused: list[int] = []

    async def put_in_vain(number: int) -> None:
        with pytest.raises(RuntimeError, match="thread"):
            await put(store, number)
        refused.append(number)

    with no_more_threads(), anyio.fail_after(10):
        async with anyio.create_task_group() as tasks, store.write() as connection:
            tasks.start_soon(put_in_vain, 1)
            tasks.start_soon(put_in_vain, 2)
            await anyio.wait_all_tasks_blocked()
            await connection.execute(text("insert into t values (3)"))
    assert sorted(refused) == [1, 2]
    with anyio.fail_after(10):
        await put(store, 4)
    assert await numbers(store) == [3, 4]


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Ask for stacks that no address space has room for: each new thread is refused."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)
