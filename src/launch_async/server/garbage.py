"""Blobs that nothing refers to any more, remembered until their bytes are gone.

A transaction that lets go of a blob notes its key; the bytes go afterwards, and if the server stops
in between, the next one lets them go.
"""

from collections.abc import Sequence
from typing import Final

import anyio
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.blobs import Blobs
from launch_async.server.store import Store
from launch_async.server.store.tables.artifacts import blob_garbage

KEYS_AT_ONCE: Final = 500
DELETED_AT_ONCE: Final = 16


async def throw_away(connection: AsyncConnection, keys: Sequence[str]) -> None:
    """Note blobs that nothing will refer to once this transaction is through."""
    for start in range(0, len(keys), KEYS_AT_ONCE):
        rows = [{"key": key} for key in keys[start : start + KEYS_AT_ONCE]]
        await connection.execute(blob_garbage.insert(), rows)


async def empty_garbage(store: Store, blobs: Blobs) -> int:
    """Delete the bytes of every blob that was thrown away; return how many they were."""
    gone = 0
    while True:
        async with store.read() as connection:
            rows = await connection.execute(
                select(blob_garbage.c.id, blob_garbage.c.key)
                .order_by(blob_garbage.c.id)
                .limit(KEYS_AT_ONCE)
            )
            found = {row.id: row.key for row in rows}
        if not found:
            return gone
        await _delete_blobs(blobs, list(found.values()))
        async with store.write() as connection:
            await connection.execute(delete(blob_garbage).where(blob_garbage.c.id.in_(found)))
        gone += len(found)


async def _delete_blobs(blobs: Blobs, keys: Sequence[str]) -> None:
    """Delete blobs, some at a time; those that are gone already are no error."""
    limiter = anyio.CapacityLimiter(DELETED_AT_ONCE)

    async def forget(key: str) -> None:
        async with limiter:
            await blobs.delete(key)

    async with anyio.create_task_group() as tasks:
        for key in keys:
            tasks.start_soon(forget, key, name="delete blob")
