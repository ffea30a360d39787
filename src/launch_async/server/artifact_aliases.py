"""Aliases: names that move among the versions of one collection.

Whoever changes them has locked the collection.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_members import newest_member
from launch_async.server.artifact_rows import LATEST, ArtifactRow, CollectionRow
from launch_async.server.errors import ApiError
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import artifact_aliases

MAX_ALIAS: Final = 128

Json = dict[str, Any]


async def put_aliases(
    connection: AsyncConnection, row: ArtifactRow, collection_id: int, aliases: Iterable[str]
) -> None:
    """Put aliases on a version; each leaves the version of the collection that had it."""
    for alias in dict.fromkeys(aliases):
        _check_alias(alias)
        statement = insert(connection, artifact_aliases).values(
            collection_id=collection_id, artifact_id=row.id, alias=alias
        )
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["collection_id", "alias"], set_={"artifact_id": row.id}
            )
        )


async def take_aliases(
    connection: AsyncConnection, row: ArtifactRow, collection_id: int, aliases: Sequence[str]
) -> None:
    """Take aliases off a version; those it has not are no error."""
    await connection.execute(
        delete(artifact_aliases).where(
            artifact_aliases.c.artifact_id == row.id,
            artifact_aliases.c.collection_id == collection_id,
            artifact_aliases.c.alias.in_(aliases),
        )
    )


async def pass_latest_on(connection: AsyncConnection, collection: CollectionRow) -> None:
    """Put `latest` on the newest version that a collection has left."""
    newest = await newest_member(connection, collection)
    if newest is not None:
        await put_aliases(connection, newest.artifact, collection.id, [LATEST])


def wanted_aliases(collection_name: str, given: Sequence[Json]) -> list[str]:
    """Return those of the given aliases that are for this collection; 400 for a bad one."""
    wanted = [
        each["alias"] for each in given if each["artifact_collection_name"] == collection_name
    ]
    for alias in wanted:
        _check_alias(alias)
    return wanted


def _check_alias(alias: str) -> None:
    if not 1 <= len(alias) <= MAX_ALIAS or "/" in alias or ":" in alias:
        raise ApiError(f"{alias!r} is not an alias: 1 to {MAX_ALIAS} characters, no '/' or ':'")
