"""Who may change a collection's versions at the moment: one transaction after the other.

A version's number, its aliases and whether it repeats another hang on what else is there. A
sequence is locked before the portfolios that link its versions.
"""

from collections.abc import Collection

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


async def lock_all_versions(connection: AsyncConnection, numbers: Collection[int]) -> None:
    """Lock several collections of one kind; everybody takes them in the same order."""
    if numbers:
        await connection.execute(
            select(artifact_collections.c.id)
            .where(artifact_collections.c.id.in_(numbers))
            .order_by(artifact_collections.c.id)
            .with_for_update(key_share=True)
        )
