"""Who may change a collection's versions at the moment: one transaction after the other.

A version's number, its aliases and whether it repeats another hang on what else is there.
"""

from sqlalchemy import ScalarSelect, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.store.tables.artifacts import artifact_collections


async def lock_versions(
    connection: AsyncConnection, collection_id: int | ScalarSelect[int]
) -> None:
    """Let nobody else create, commit, name or delete versions until the transaction ends."""
    await connection.execute(
        select(artifact_collections.c.id)
        .where(artifact_collections.c.id == collection_id)
        .with_for_update(key_share=True)
    )
