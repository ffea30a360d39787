"""Databases of their own for tests, on the PostgreSQL that scripts/postgres starts.

    with fresh_database(postgres) as url:                 # in a test that blocks
    async with postgres.database(template) as url:        # in a coroutine

What a killed session left behind is dropped by the next one.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
from anyio.from_thread import start_blocking_portal

URL_VARIABLE = "LAUNCH_ASYNC_TEST_DATABASE_URL"
DEFAULT_URL = "postgresql://launch_async:launch_async@127.0.0.1:54329/postgres"
REMEDY = f"start one with `make postgres-up`, or name one in {URL_VARIABLE}"
PREFIX = "launch_async_test"
CONNECT_SECONDS = 3
numbers = itertools.count(1)


class Postgres(msgspec.Struct, frozen=True):
    """A server on which we may make databases, through any database of it."""

    url: str

    async def make(self, template: str | None = None) -> str:
        """Make a database, empty or a copy of another one that nobody uses; return its URL."""
        name = f"{PREFIX}_{os.getpid()}_{next(numbers)}"
        source = "template1" if template is None else _name_of(template)
        await self.run(f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY file_copy')
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    async def drop(self, url: str) -> None:
        """Drop a database with whatever is still connected to it."""
        await self.run(f'DROP DATABASE IF EXISTS "{_name_of(url)}" WITH (FORCE)')

    @asynccontextmanager
    async def database(self, template: str | None = None) -> AsyncGenerator[str]:
        """Lend the URL of a database of one's own."""
        url = await self.make(template)
        try:
            yield url
        finally:
            await self.drop(url)

    async def run(self, statement: str) -> list[asyncpg.Record]:
        """Run one statement outside any transaction."""
        connection = await asyncpg.connect(self.url, timeout=CONNECT_SECONDS)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()


@contextmanager
def fresh_database(postgres: Postgres) -> Iterator[str]:
    """Lend the URL of an empty database to a test that blocks."""
    with start_blocking_portal() as portal:
        url = portal.call(postgres.make)
        try:
            yield url
        finally:
            portal.call(postgres.drop, url)


def find_postgres() -> Postgres | None:
    """Return the server that tests may use, if it answers."""
    postgres = Postgres(os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    try:
        asyncio.run(_sweep(postgres))
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return None
    return postgres


async def _sweep(postgres: Postgres) -> None:
    """Drop databases of processes that are gone."""
    for row in await postgres.run(f"SELECT datname FROM pg_database WHERE datname ~ '^{PREFIX}_'"):  # noqa: S608
        process = row["datname"].removeprefix(f"{PREFIX}_").partition("_")[0]
        if not Path("/proc", process).exists():
            await postgres.run(f'DROP DATABASE IF EXISTS "{row["datname"]}" WITH (FORCE)')


def _name_of(url: str) -> str:
    return urlsplit(url).path.lstrip("/")
