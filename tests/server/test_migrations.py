"""Every database comes to the newest schema, from any older one, with all that is in it."""

import subprocess
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, DateTime, MetaData, Table, Text, insert, select, text

from databases import Postgres
from launch_async.domain.errors import ConfigError
from launch_async.server.store import Store
from launch_async.server.store.engine import open_engine
from launch_async.server.store.migrate import alembic_config, migrate

pytestmark = pytest.mark.anyio

MIGRATE = "import sys; from launch_async.server.store.migrate import migrate; migrate(sys.argv[1])"
AT_ONCE = 4
MOMENT = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
async def url(tmp_path: Path, database: Postgres | None) -> AsyncGenerator[str]:
    """The URL of an empty database."""
    if database is None:
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    async with database.database() as made:
        yield made


async def on(url: str, work: Any) -> Any:
    """Do work with a connection; what it writes is kept."""
    engine = open_engine(url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def revisions() -> list[str]:
    """Return every revision, the first one first."""
    scripts = ScriptDirectory.from_config(alembic_config("sqlite://"))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def value_of(column: Column[Any]) -> Any:
    """Return something that a column can hold; keys are 1."""
    kind = column.type.python_type
    if kind is str:
        return "{}" if isinstance(column.type, Text) else f"{column.table.name}"[:8]
    if kind is datetime or isinstance(column.type, DateTime):
        return MOMENT
    return kind(1)


def reflected(connection: Connection) -> MetaData:
    schema = MetaData()
    schema.reflect(connection)
    return schema


async def test_rows_of_every_age_live_through_all_migrations(url: str) -> None:
    known: dict[str, dict[str, Any]] = {}

    def add_rows(connection: Connection) -> None:
        for table in reflected(connection).sorted_tables:
            if table.name in known or table.name == "alembic_version":
                continue
            row = {c.name: value_of(c) for c in table.columns if c.computed is None}
            connection.execute(insert(table).values(row))
            known[table.name] = row

    def check_rows(connection: Connection) -> None:
        schema = reflected(connection)
        assert set(known) == set(schema.tables) - {"alembic_version"}
        for name, row in known.items():
            check_row(connection, schema.tables[name], row)

    def check_row(connection: Connection, table: Table, row: dict[str, Any]) -> None:
        kept = connection.execute(select(table)).mappings().one()
        for column, value in row.items():
            if column in kept and not isinstance(value, datetime):
                assert kept[column] == value, (table.name, column)

    for revision in revisions():
        await anyio.to_thread.run_sync(migrate, url, revision)
        await on(url, add_rows)
    await on(url, check_rows)


async def test_members_keep_their_role(url: str) -> None:
    def add(connection: Connection) -> None:
        schema = reflected(connection)
        for number, admin in ((1, True), (2, False)):
            row = {"id": number, "username": f"u{number}", "name": "n", "admin": False}
            connection.execute(insert(schema.tables["users"]).values(row | {"created_at": MOMENT}))
            entity = {"id": number, "name": f"e{number}", "kind": "team", "created_at": MOMENT}
            connection.execute(insert(schema.tables["entities"]).values(entity))
            member = {"user_id": number, "entity_id": 1, "admin": admin, "created_at": MOMENT}
            connection.execute(insert(schema.tables["memberships"]).values(member))

    def roles(connection: Connection) -> list[tuple[int, str]]:
        found = connection.execute(text("SELECT user_id, role FROM memberships ORDER BY user_id"))
        return [tuple(row) for row in found]

    await anyio.to_thread.run_sync(migrate, url, "0003")
    await on(url, add)
    await anyio.to_thread.run_sync(migrate, url)
    assert await on(url, roles) == [(1, "admin"), (2, "member")]


async def test_servers_that_start_at_once_wait_for_the_first(url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(AT_ONCE)
    ]
    ends = [await anyio.to_thread.run_sync(process.communicate) for process in processes]
    assert [process.returncode for process in processes] == [0] * AT_ONCE, ends

    def version(connection: Connection) -> list[str]:
        return list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())

    assert await on(url, version) == [revisions()[-1]]


async def test_a_database_of_a_newer_version_is_left_alone(url: str) -> None:
    def grow_older(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await (await Store.open(url)).close()
    await on(url, grow_older)
    with pytest.raises(ConfigError, match="newer launch-async"):
        await Store.open(url)
