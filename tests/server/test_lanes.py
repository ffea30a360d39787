"""Short transactions that share a trip to SQLite are transactions of their own all the same."""

import asyncio
from collections.abc import AsyncGenerator
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
