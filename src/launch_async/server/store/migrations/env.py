"""Alembic's entry: one connection, one transaction around the whole upgrade."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from launch_async.server.store.engine import BEGIN_OPTION, open_engine
from launch_async.server.store.tables import artifacts, metadata, people, queues, runs

TABLES = (people, runs, queues, artifacts)  # imported so that `metadata` knows them
LOCK = 0x1A07C4A5  # any number that no other program takes for its own lock in our database


def run(connection: Connection) -> None:
    """Upgrade through an open connection."""
    if connection.dialect.name == "postgresql":  # on SQLite, BEGIN IMMEDIATE has us alone already
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    """Open the database, and let a second server that starts meanwhile wait for us."""
    engine = open_engine(context.config.attributes["url"], connections=1, limited=False)
    try:
        immediate = engine.execution_options(**{BEGIN_OPTION: "BEGIN IMMEDIATE"})
        async with immediate.begin() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


asyncio.run(main())
