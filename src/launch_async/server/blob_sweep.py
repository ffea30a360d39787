"""The sweep of blobs that no version holds.

A blob is looked at when it has been loose for the time of grace. If a committed version holds it,
it is not loose; if one that is still PENDING waits for it, it is looked at again later; else its
row goes, and its key to the garbage. On PostgreSQL the rows are locked first, but for those that
somebody else has in hand: who wants a content that is being swept waits and gets another edition.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, exists, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_blobs import blob_key
from launch_async.server.artifact_rows import PENDING
from launch_async.server.garbage import throw_away
from launch_async.server.store import Store
from launch_async.server.store.tables.artifacts import (
    artifact_blobs,
    artifact_collections,
    artifact_files,
    artifact_pending_blobs,
    artifacts,
)
from launch_async.server.store.tables.runs import projects

ROWS_AT_ONCE: Final = 500


async def sweep_blobs(store: Store, *, before: datetime, now: datetime) -> int:
    """Let go of blobs that have been nobody's since `before`; return how many they were."""
    gone = 0
    while True:
        async with store.write() as connection:
            loose = await _loose(connection, before)
            gone += await _sweep(connection, loose, now=now)
        if not loose:
            return gone


async def _loose(connection: AsyncConnection, before: datetime) -> list[tuple[int, str]]:
    rows = await connection.execute(
        select(artifact_blobs.c.entity_id, artifact_blobs.c.md5)
        .where(artifact_blobs.c.loose_since < before)
        .order_by(artifact_blobs.c.loose_since)
        .limit(ROWS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return [(row.entity_id, row.md5) for row in rows]


async def _sweep(
    connection: AsyncConnection, loose: list[tuple[int, str]], *, now: datetime
) -> int:
    if not loose:
        return 0
    which = tuple_(artifact_blobs.c.entity_id, artifact_blobs.c.md5).in_(loose)
    held, awaited = _held(), _awaited()
    await connection.execute(update(artifact_blobs).where(which, held).values(loose_since=None))
    await connection.execute(update(artifact_blobs).where(which, awaited).values(loose_since=now))
    rows = await connection.execute(
        delete(artifact_blobs)
        .where(which, ~held, ~awaited)
        .returning(artifact_blobs.c.entity_id, artifact_blobs.c.md5, artifact_blobs.c.edition)
    )
    keys = [blob_key(*row) for row in rows]
    await throw_away(connection, keys)
    return len(keys)


def _held() -> Any:
    own = artifact_files.c.artifact_id == artifacts.c.id
    same = artifact_files.c.md5 == artifact_blobs.c.md5
    return _of_the_entity(artifact_files, own, same)


def _awaited() -> Any:
    own = artifact_pending_blobs.c.artifact_id == artifacts.c.id
    same = artifact_pending_blobs.c.md5 == artifact_blobs.c.md5
    return _of_the_entity(artifact_pending_blobs, own, same, artifacts.c.state == PENDING)


def _of_the_entity(table: Any, *conditions: Any) -> Any:
    return (
        exists()
        .select_from(table)
        .where(
            *conditions,
            artifact_collections.c.id == artifacts.c.collection_id,
            projects.c.id == artifact_collections.c.project_id,
            projects.c.entity_id == artifact_blobs.c.entity_id,
        )
        .correlate(artifact_blobs)
    )
