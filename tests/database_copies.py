"""Copies of a database for one test after the other.

CREATE DATABASE copies some 300 files, several times the work of most tests. So a copy that was used
gets its template's rows back and is lent again. One that cannot be as its template is any more, as
its tables are others, were analysed or grew, is dropped.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from graphlib import TopologicalSorter
from typing import Self

import anyio
import asyncpg
import msgspec

from databases import CONNECT_SECONDS, Postgres

MAY_GROW_BYTES = 2 * 2**20
LEAVE_SECONDS = 1.0
LIMITS = {"lock_timeout": "1000"}

RELATIONS = """
SELECT string_agg(concat_ws(' ', relname, relkind, reltuples), ',' ORDER BY relname) AS names,
       sum(pg_relation_size(oid)) AS bytes
FROM pg_class WHERE relnamespace = 'public'::regnamespace
"""
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
REFERENCES = """
SELECT conrelid::regclass::text AS referring, confrelid::regclass::text AS referred
FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid
"""
SEQUENCES = "SELECT sequencename AS name, last_value FROM pg_sequences WHERE schemaname = 'public'"
OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class State(msgspec.Struct, frozen=True):
    """What a template holds, and how a copy of it comes to hold the same again."""

    relations: str
    size_bytes: int
    restoring: str
    """SQL for an unchanged schema."""


class Copies:
    """Copies of one template; `lent` may be used by several at once."""

    def __init__(self, postgres: Postgres, template: str, state: State) -> None:
        self._postgres = postgres
        self._template = template
        self._state = state
        self._free: list[str] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, postgres: Postgres, template: str) -> AsyncGenerator[Self]:
        """Lend copies of a database, which stays as it is, while the block lasts."""
        connection = await asyncpg.connect(template, timeout=CONNECT_SECONDS)
        try:
            state = await _state(connection)
        finally:
            await connection.close()
        copies = cls(postgres, template, state)
        try:
            yield copies
        finally:
            for url in copies._free:
                await postgres.drop(url)

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[str]:
        """Lend the URL of a database that holds what the template holds."""
        url = self._free.pop() if self._free else await self._postgres.make(self._template)
        try:
            yield url
        finally:
            if await self._is_restored(url):
                self._free.append(url)
            else:
                await self._postgres.drop(url)

    async def _is_restored(self, url: str) -> bool:
        try:
            connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=LIMITS)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        try:
            return await _restore(connection, self._state)
        except asyncpg.PostgresError:
            return False
        finally:
            await connection.close()


async def _restore(connection: asyncpg.Connection, state: State) -> bool:
    """Make a copy what the template is; false if it cannot be."""
    if not await _is_alone(connection):
        return False
    found = await connection.fetchrow(RELATIONS)
    if found["names"] != state.relations or found["bytes"] > state.size_bytes + MAY_GROW_BYTES:
        return False
    await connection.execute(state.restoring)  # in one transaction
    return True


async def _is_alone(connection: asyncpg.Connection) -> bool:
    """Wait for those who are about to leave: what they still did would stay."""
    with anyio.move_on_after(LEAVE_SECONDS):
        while await connection.fetchval(OTHERS):
            await anyio.sleep(0.01)
        return True
    return False


async def _state(connection: asyncpg.Connection) -> State:
    relations = await connection.fetchrow(RELATIONS)
    return State(
        relations=relations["names"],
        size_bytes=relations["bytes"],
        restoring=";\n".join(await _restoring(connection)),
    )


async def _restoring(connection: asyncpg.Connection) -> list[str]:
    """Statements that delete all rows of a copy and put in those that are here."""
    referred_first = await _tables(connection)
    statements = [f'DELETE FROM "{table}"' for table in reversed(referred_first)]  # noqa: S608
    for table in referred_first:
        rows = await connection.fetchval(
            f'SELECT quote_literal(json_agg(rows)::text) FROM "{table}" rows'  # noqa: S608
        )
        if rows is not None:
            statements.append(
                f'INSERT INTO "{table}" OVERRIDING SYSTEM VALUE'  # noqa: S608
                f' SELECT * FROM json_populate_recordset(NULL::"{table}", {rows})'
            )
    for sequence in await connection.fetch(SEQUENCES):
        last = sequence["last_value"]
        words = f"{last or 1}, {'true' if last else 'false'}"
        statements.append(f"SELECT setval('\"{sequence['name']}\"', {words})")
    return statements


async def _tables(connection: asyncpg.Connection) -> list[str]:
    """Return all tables, those that others refer to before these."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for row in await connection.fetch(TABLES):
        order.add(row["tablename"])
    for row in await connection.fetch(REFERENCES):
        order.add(row["referring"], row["referred"])
    return list(order.static_order())
