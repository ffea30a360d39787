"""PostgreSQL's own troubles: a wrong address, a lost connection, a deadlock."""

import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import msgspec
import pytest
from server_harness import Http, Server, Template, served
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from databases import Postgres
from launch_async.compose.server import open_server
from launch_async.domain.errors import ConfigError
from launch_async.server.errors import ApiError
from launch_async.server.settings import Settings
from launch_async.server.store import Store
from launch_async.server.store.engine import READERS, WRITERS
from launch_async.server.store.faults import insist
from launch_async.server.store.lane import Work
from launch_async.server.store.postgres import LIMITS

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

WORD = "Sesame-1"
CLI = "import sys; sys.argv[0] = 'launch-async'; from launch_async.cli.main import main; main()"


@pytest.fixture
def place(postgres: Postgres) -> str:
    """HOST:PORT of the server."""
    return postgres.url.rpartition("@")[2].partition("/")[0]


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("postgresql://launch_async:launch_async@{place}/nowhere", "createdb nowhere"),
        ("postgresql://launch_async:Sesame-1@{place}/postgres", "PGPASSWORD"),
        ("postgresql://nobody:Sesame-1@{place}/postgres", "'nobody'"),
        ("postgresql://u:Sesame-1@127.0.0.1:1/d", "127.0.0.1:1"),
        ("postgresql://u:Sesame-1@no-such-host.invalid/d", "no-such-host.invalid:5432"),
        ("postgresql://u:Sesame-1@127.0.0.1:port/d", "cannot be read"),
        ("postgresql://u:Sesame-1/x@host/d", "%2F"),
        ("mysql://u:Sesame-1@host/d", "sqlite:///PATH"),
        ("Sesame-1", "sqlite:///PATH"),
    ],
)
async def test_a_database_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, place: str, url: str, remedy: str
) -> None:
    settings = Settings(data_dir=tmp_path, database_url=url.format(place=place))
    with pytest.raises(ConfigError) as refused:
        async with open_server(settings):
            pass
    message = str(refused.value)
    assert remedy in message
    assert WORD not in message
    assert "\n" not in message


async def test_a_user_who_may_not_make_tables_is_told_so(
    tmp_path: Path, postgres: Postgres, place: str
) -> None:
    """Since PostgreSQL 15 only a database's owner may, unless allowed."""
    settings = Settings(data_dir=tmp_path, database_url=postgres.url)
    with pytest.raises(ConfigError, match="may not make tables"):
        async with open_server(settings):
            pass


@pytest.mark.parametrize("missing", ["asyncpg", None])
def test_the_command_ends_with_one_line_and_2(missing: str | None, tmp_path: Path) -> None:
    url = f"postgres://u:{WORD}@127.0.0.1:1/d"
    hide = f"import sys; sys.modules[{missing!r}] = None; " if missing else ""
    words = ["server", "--data", str(tmp_path), "--listen", "127.0.0.1:0"]
    ended = subprocess.run(
        [sys.executable, "-c", hide + CLI, *words],
        env={**os.environ, "LAUNCH_ASYNC_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert ("launch-async[postgres]" if missing else "127.0.0.1:1") in line
    assert WORD not in ended.stderr


@pytest.fixture
async def store(server: Server) -> Store:
    return server.services.store


async def test_statements_and_waits_are_bounded(store: Store) -> None:
    async with store.write() as connection:
        for name, milliseconds in LIMITS.items():
            shown = await connection.scalar(
                text("SELECT setting FROM pg_settings WHERE name = :name"), {"name": name}
            )
            assert shown == milliseconds


async def test_a_reader_sees_one_state_and_cannot_write(store: Store) -> None:
    async with store.read() as connection:
        count = text("SELECT count(*) FROM users")
        assert await connection.scalar(count) == 1
        async with store.write() as writer:
            await writer.execute(
                text("INSERT INTO users VALUES (9, 'new', 'n', NULL, false, now(), false)")
            )
        assert await connection.scalar(count) == 1
        assert await connection.scalar(text("SHOW transaction_read_only")) == "on"


CLOSE_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def use_at_once(
    runner: Callable[[Work[None]], Coroutine[Any, Any, None]], count: int
) -> None:
    """Have so many connections open at the same time."""
    using: list[None] = []
    enough = anyio.Event()

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT 1"))
        using.append(None)
        if len(using) == count:
            enough.set()
        await enough.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(runner, work)


async def test_requests_go_on_when_the_database_closes_all_connections(
    store: Store, http: Http
) -> None:
    """However many there are: a request is done again less often than there are connections."""
    await use_at_once(store.lookup, READERS)
    await use_at_once(store.transact, WRITERS)
    async with store.read() as connection:
        await connection.execute(text(CLOSE_ALL))
    answers = [await http.stream("r1", {}) for _ in range(3)]
    answers += [await http.ask("{ viewer { username } }") for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 6


async def test_a_refusal_stands_when_the_connection_is_lost_before_it_is_undone(
    store: Store, server: Server
) -> None:
    other = await asyncpg.connect(server.services.settings.database_url)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE users SET name = 'new'"))
        await other.execute(CLOSE_ALL)
        raise ApiError("no")  # at once: we did not hear yet that the connection is gone

    with pytest.raises(ApiError, match="no"):
        await store.transact(work)
    assert await other.fetchval("SELECT name FROM users") != "new"
    await other.close()


async def test_a_database_that_is_away_is_a_503_that_says_so(
    tmp_path: Path, template: Template, http: Http
) -> None:
    away = "postgresql://u:Sesame-1@127.0.0.1:1/d"
    async with template.copied(tmp_path / "s") as settings:
        lost = msgspec.structs.replace(settings, database_url=away)
        async with served(lost, template) as server:
            unlucky = Http(http.session, server)
            for answer in (
                await unlucky.ask("{ viewer { username } }"),
                await unlucky.stream("r1", {}),
            ):
                assert answer.status == 503
                assert "database" in answer.json()["errors"][0]["message"]
                assert WORD.encode() not in answer.body


async def test_what_a_deadlock_undid_is_done_again(store: Store) -> None:
    """Each locks its own row, then the other's: PostgreSQL undoes one of the two."""
    async with store.write() as connection:
        await connection.execute(text("CREATE TABLE cells (id int PRIMARY KEY, sum int)"))
        await connection.execute(text("INSERT INTO cells VALUES (1, 0), (2, 0)"))
    tries: list[int] = []
    locked: set[int] = set()
    both = anyio.Event()

    async def add(first: int, second: int) -> None:
        async def work() -> None:
            tries.append(first)
            async with store.write() as connection:
                await change(connection, first)
                locked.add(first)
                if len(locked) == 2:
                    both.set()
                await both.wait()
                await change(connection, second)

        await insist(work)

    async def change(connection: Any, number: int) -> None:
        await connection.execute(
            text("UPDATE cells SET sum = sum + 1 WHERE id = :id"), {"id": number}
        )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add, 1, 2)
        tasks.start_soon(add, 2, 1)
    assert len(tries) == 3
    async with store.read() as connection:
        rows = await connection.execute(text("SELECT sum FROM cells"))
        assert list(rows.scalars()) == [2, 2]
