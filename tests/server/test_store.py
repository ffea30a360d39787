"""The database: its schema, its transactions and its moments."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from server_harness import Server
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.errors import ConfigError
from launch_async.server.store import Store
from launch_async.server.store.engine import READERS, hold
from launch_async.server.store.prepared import often
from launch_async.server.store.tables import metadata
from launch_async.server.store.tables.people import users

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


def user(username: str, created_at: datetime = NOW) -> dict[str, object]:
    return {"username": username, "name": "n", "admin": False, "created_at": created_at}


async def test_the_migrations_make_the_tables_as_they_are_declared(server: Server) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async with server.services.store.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_two_servers_may_start_at_once(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'deep' / 'new.db'}"
    opened: list[Store] = []

    async def start() -> None:
        opened.append(await Store.open(url))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(start)
    assert len(opened) == 4
    for store in opened:
        await store.close()


async def test_an_error_undoes_the_whole_transaction(server: Server) -> None:
    async def add_two() -> None:
        async with server.services.store.write() as connection:
            await connection.execute(insert(users).values(user("new")))
            await connection.execute(insert(users).values(user("tester")))

    with pytest.raises(IntegrityError):
        await add_two()
    assert await server.rows("select username from users") == [("tester",)]


PUT = often(insert(users))
NAMED = often(select(users.c.username, users.c.created_at).where(users.c.username == "new"))


async def test_a_prepared_statement_keeps_and_reads_as_any_other(server: Server) -> None:
    async def add(connection: AsyncConnection) -> None:
        await connection.execute(PUT, user("new"))

    async def read(connection: AsyncConnection) -> list[tuple[str, datetime]]:
        return [tuple(row) for row in await connection.execute(NAMED)]

    await server.services.store.transact(add)
    assert await server.services.store.lookup(read) == [("new", NOW)]
    async with server.services.store.read() as connection:
        assert await read(connection) == [("new", NOW)]


@pytest.mark.parametrize("often_first", [False, True])
async def test_an_error_undoes_statements_of_both_kinds(
    server: Server, *, often_first: bool
) -> None:
    kinds = [PUT, insert(users)] if often_first else [insert(users), PUT]

    async def add_two(connection: AsyncConnection) -> None:
        await connection.execute(kinds[0], user("new"))
        await connection.execute(kinds[1], user("tester"))

    with pytest.raises(DBAPIError):
        await server.services.store.transact(add_two)
    assert await server.rows("select 1 from users where username = 'new'") == []

    async def again(connection: AsyncConnection) -> None:
        await connection.execute(kinds[0], user("new"))
        await connection.execute(kinds[1], user("newer"))

    await server.services.store.transact(again)
    assert len(await server.rows("select 1 from users where username like 'new%'")) == 2


async def test_a_cancellation_waits_for_the_end_of_a_write(server: Server) -> None:
    with anyio.CancelScope() as scope:
        async with server.services.store.write() as connection:
            await connection.execute(insert(users).values(user("new")))
            scope.cancel()
            await connection.execute(insert(users).values(user("next")))
        await anyio.sleep(60)
    assert scope.cancelled_caught
    names = await server.rows("select username from users order by id")
    assert names == [("tester",), ("new",), ("next",)]


async def test_writers_who_hold_one_name_take_turns(server: Server) -> None:
    async def add(number: int) -> None:
        async with server.services.store.write() as connection:
            await hold(connection, "users", 1)
            count = await connection.scalar(text("select count(*) from users"))
            await connection.execute(insert(users).values(user(f"u{number}-{count}")))

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(add, number)
    names = await server.rows("select username from users order by id")
    assert [name.rpartition("-")[2] for (name,) in names[1:]] == [str(n) for n in range(1, 31)]


async def test_readers_do_not_wait_for_a_writer(server: Server) -> None:
    store = server.services.store
    async with store.write() as connection:
        await connection.execute(insert(users).values(user("new")))
        with anyio.fail_after(5):
            assert await server.rows("select username from users") == [("tester",)]


async def test_a_moment_comes_back_in_utc(server: Server) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    async with server.services.store.write() as connection:
        await connection.execute(insert(users).values(user("new", elsewhere)))
        moment = await connection.scalar(select(users.c.created_at).where(users.c.name == "n"))
    assert moment is not None
    assert (moment, moment.tzinfo) == (NOW, UTC)


async def test_a_moment_without_a_zone_is_refused(server: Server) -> None:
    async with server.services.store.write() as connection:
        with pytest.raises(StatementError, match="without a time zone"):
            await connection.execute(insert(users).values(user("new", NOW.replace(tzinfo=None))))


async def test_a_writer_does_not_wait_for_readers_however_many(server: Server) -> None:
    store = server.services.store
    enough = anyio.Event()
    reading = 0

    async def read() -> None:
        nonlocal reading
        async with store.read() as connection:
            await connection.execute(text("select 1"))
            reading += 1
            if reading == READERS:
                enough.set()
            await done.wait()

    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(READERS):
            tasks.start_soon(read)
        await enough.wait()
        with anyio.fail_after(5):
            async with store.write() as connection:
                await connection.execute(insert(users).values(user("quick")))
        done.set()


async def test_an_error_shows_no_parameters(server: Server) -> None:
    async def twice() -> None:
        async with server.services.store.write() as connection:
            await connection.execute(insert(users).values(user("sesame")))
            await connection.execute(insert(users).values(user("sesame")))

    with pytest.raises(IntegrityError) as failed:
        await twice()
    assert "sesame" not in str(failed.value)


@pytest.mark.parametrize("name", ["folder", "words", "missing/deep.db", ":memory:"])
async def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "words").write_text("these are just words, and no database at all")
    (tmp_path / "missing").write_text("no folder")
    place = name if name == ":memory:" else str(tmp_path / name)
    with pytest.raises(ConfigError, match="SQLite") as refused:
        await Store.open(f"sqlite:///{place}")
    assert "\n" not in str(refused.value)
