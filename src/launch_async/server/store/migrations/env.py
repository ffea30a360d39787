"""Alembic's entry: one connection, one transaction around the whole upgrade."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from launch_async.server.store.engine import BEGIN_OPTION, open_engine
from launch_async.server.store.tables import metadata, people, runs

TABLES = (people, runs)  # imported so that `metadata` knows them


def run(connection: Connection) -> None:
    """Upgrade through an open connection."""
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    """Open the database, and let a second server that starts meanwhile wait for us."""
    engine = open_engine(context.config.attributes["url"])
    try:
        immediate = engine.execution_options(**{BEGIN_OPTION: "BEGIN IMMEDIATE"})
        async with immediate.begin() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


asyncio.run(main())
