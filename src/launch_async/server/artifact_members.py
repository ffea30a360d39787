"""Versions as members of a collection: a sequence's own, or those that a portfolio links.

A version's number and its aliases belong to the membership: v0 of a sequence may well be v3 of a
portfolio.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_rows import (
    COMMITTED,
    LATEST,
    AliasRow,
    ArtifactRow,
    CollectionRow,
    artifact_select,
    collections_by_number,
    load_artifacts,
    named_collection,
)
from launch_async.server.store.tables.artifacts import artifact_aliases, artifact_links, artifacts

VERSION: Final = re.compile(r"v(\d{1,9})", re.ASCII)


class MemberRow(msgspec.Struct, frozen=True):
    """A committed version in one of its collections."""

    artifact: ArtifactRow
    collection: CollectionRow
    version_index: int | None
    created_at: datetime

    @property
    def aliases(self) -> tuple[AliasRow, ...]:
        """The aliases that it has in this collection."""
        return self.artifact.aliases_in(self.collection.id)


def members_select(collection: CollectionRow) -> Select[*tuple[Any, ...]]:
    """Return a SELECT of a collection's committed versions, without an order."""
    statement = artifact_select().where(artifacts.c.state == COMMITTED)
    if not collection.is_portfolio:
        return statement.where(artifacts.c.collection_id == collection.id)
    return statement.join(artifact_links, artifact_links.c.artifact_id == artifacts.c.id).where(
        artifact_links.c.collection_id == collection.id
    )


def member_number(collection: CollectionRow) -> Any:
    """Return the column of `members_select` that is the version's number in the collection."""
    return (artifact_links if collection.is_portfolio else artifacts).c.version_index


async def load_members(
    connection: AsyncConnection, collection: CollectionRow, statement: Select[*tuple[Any, ...]]
) -> list[MemberRow]:
    """Return the members of a `members_select`."""
    found = await load_artifacts(connection, statement)
    if not collection.is_portfolio:
        return [member_at_home(row) for row in found]
    rows = await connection.execute(
        select(
            artifact_links.c.artifact_id,
            artifact_links.c.version_index,
            artifact_links.c.created_at,
        ).where(
            artifact_links.c.collection_id == collection.id,
            artifact_links.c.artifact_id.in_([row.id for row in found]),
        )
    )
    links = {row.artifact_id: row for row in rows}
    return [
        MemberRow(row, collection, links[row.id].version_index, links[row.id].created_at)
        for row in found
        if row.id in links
    ]


def member_at_home(row: ArtifactRow) -> MemberRow:
    """Return a version as a member of the sequence that it belongs to."""
    return MemberRow(row, row.collection, row.version_index, row.created_at)


async def memberships_of(connection: AsyncConnection, row: ArtifactRow) -> list[MemberRow]:
    """Return a version in each of its collections, its own sequence first."""
    links = (
        await connection.execute(
            select(
                artifact_links.c.collection_id,
                artifact_links.c.version_index,
                artifact_links.c.created_at,
            )
            .where(
                artifact_links.c.artifact_id == row.id, artifact_links.c.version_index.is_not(None)
            )
            .order_by(artifact_links.c.id)
        )
    ).all()
    collections = await collections_by_number(connection, [link.collection_id for link in links])
    return [
        member_at_home(row),
        *(
            MemberRow(row, collections[link.collection_id], link.version_index, link.created_at)
            for link in links
            if link.collection_id in collections
        ),
    ]


async def named_member(connection: AsyncConnection, project_id: int, name: str) -> MemberRow | None:
    """Return a committed version by `collection`, `collection:alias`, `:vN` or `:digest`."""
    collection_name, _, alias = name.partition(":")
    collection = await named_collection(connection, project_id, collection_name)
    return None if collection is None else await member(connection, collection, alias or LATEST)


async def member(
    connection: AsyncConnection, collection: CollectionRow, alias: str
) -> MemberRow | None:
    """Return a committed version of a collection by vN, alias or digest, in this order.

    An image job has its image's tag as an alias, and a tag may well be v3.
    """
    by_alias = select(artifact_aliases.c.artifact_id).where(
        artifact_aliases.c.collection_id == collection.id, artifact_aliases.c.alias == alias
    )
    conditions = [artifacts.c.id.in_(by_alias), artifacts.c.digest == alias]
    version = VERSION.fullmatch(alias)
    if version is not None:
        conditions.insert(0, member_number(collection) == int(version.group(1)))
    for condition in conditions:
        found = await _newest(connection, collection, condition)
        if found is not None:
            return found
    return None


async def newest_member(connection: AsyncConnection, collection: CollectionRow) -> MemberRow | None:
    """Return the committed version with the highest number."""
    return await _newest(connection, collection)


async def _newest(
    connection: AsyncConnection, collection: CollectionRow, *conditions: Any
) -> MemberRow | None:
    statement = (
        members_select(collection)
        .where(*conditions)
        .order_by(member_number(collection).desc())
        .limit(1)
    )
    found: Sequence[MemberRow] = await load_members(connection, collection, statement)
    return found[0] if found else None
