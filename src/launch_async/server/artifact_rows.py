"""Artifacts as they are read: versions with their collection, type, aliases and tags."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number
from launch_async.server.store.tables.artifacts import (
    artifact_aliases,
    artifact_collections,
    artifact_tags,
    artifact_types,
    artifacts,
)
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.runs import projects

ARTIFACT: Final = "Artifact"
COLLECTION: Final = "ArtifactCollection"
COMMITTED: Final = "COMMITTED"
PENDING: Final = "PENDING"
DELETED: Final = "DELETED"
LATEST: Final = "latest"
VERSION: Final = re.compile(r"v(\d{1,9})", re.ASCII)


class TypeRow(msgspec.Struct, frozen=True):
    """A type of artifacts in one project."""

    id: int
    project_id: int
    name: str
    description: str | None
    created_at: datetime


class CollectionRow(msgspec.Struct, frozen=True):
    """A named sequence of versions."""

    id: int
    project_id: int
    type_id: int
    name: str
    description: str | None
    created_at: datetime
    updated_at: datetime | None
    type_name: str
    type_created_at: datetime
    entity_id: int
    entity_name: str


class ArtifactRow(msgspec.Struct, frozen=True):
    """One version with the collection that it belongs to."""

    id: int
    collection: CollectionRow
    state: str
    version_index: int | None
    digest: str
    digest_algorithm: str
    description: str | None
    metadata: str | None
    labels: str | None
    ttl_seconds: int | None
    history_step: int | None
    size: int
    file_count: int
    wanted_aliases: str
    created_by: int | None
    created_at: datetime
    updated_at: datetime | None
    aliases: tuple[tuple[int, str], ...] = ()
    """(row id, alias) of each."""
    tags: tuple[tuple[int, str], ...] = ()
    """(row id, name) of each."""


OWN_COLUMNS = ArtifactRow.__struct_fields__[2:17]
COLLECTION_COLUMNS = (
    artifact_collections.c.id,
    artifact_collections.c.project_id,
    artifact_collections.c.type_id,
    artifact_collections.c.name,
    artifact_collections.c.description,
    artifact_collections.c.created_at,
    artifact_collections.c.updated_at,
    artifact_types.c.name,
    artifact_types.c.created_at,
    projects.c.entity_id,
    entities.c.name,
)


def collection_select() -> Select[*tuple[Any, ...]]:
    """Return a SELECT whose rows are CollectionRow's fields."""
    return (
        select(*COLLECTION_COLUMNS)
        .join(artifact_types, artifact_types.c.id == artifact_collections.c.type_id)
        .join(projects, projects.c.id == artifact_collections.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
    )


def artifact_select() -> Select[*tuple[Any, ...]]:
    """Return a SELECT whose rows `load_artifacts` understands."""
    return (
        select(*COLLECTION_COLUMNS, artifacts.c.id, *(artifacts.c[name] for name in OWN_COLUMNS))
        .select_from(artifacts)
        .join(artifact_collections, artifact_collections.c.id == artifacts.c.collection_id)
        .join(artifact_types, artifact_types.c.id == artifact_collections.c.type_id)
        .join(projects, projects.c.id == artifact_collections.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
    )


async def load_artifacts(
    connection: AsyncConnection, statement: Select[*tuple[Any, ...]]
) -> list[ArtifactRow]:
    """Return the artifacts of an `artifact_select`, with their aliases and tags."""
    width = len(COLLECTION_COLUMNS)
    rows = (await connection.execute(statement)).all()
    numbers = [row[width] for row in rows]
    aliases = await _names(connection, artifact_aliases.c.alias, numbers)
    tags = await _names(connection, artifact_tags.c.name, numbers)
    found: list[ArtifactRow] = []
    for row in rows:
        number, own = row[width], dict(zip(OWN_COLUMNS, row[width + 1 :], strict=True))
        own.update(aliases=aliases.get(number, ()), tags=tags.get(number, ()))
        found.append(ArtifactRow(id=number, collection=CollectionRow(*row[:width]), **own))
    return found


async def artifact_by_number(connection: AsyncConnection, number: int) -> ArtifactRow | None:
    """Return an artifact by its row id. The caller checks that the viewer may see it."""
    found = await load_artifacts(connection, artifact_select().where(artifacts.c.id == number))
    return found[0] if found else None


async def find_artifact(
    connection: AsyncConnection, request: Request, artifact_id: str
) -> ArtifactRow | None:
    """Return an artifact by its opaque id, or None when missing or not the viewer's to see."""
    try:
        number = decode_number(artifact_id, ARTIFACT)
    except ApiError:
        return None
    found = await artifact_by_number(connection, number)
    if found is None or found.collection.entity_name not in request.viewer.entities:
        return None
    return found


async def require_artifact(
    connection: AsyncConnection, request: Request, artifact_id: str
) -> ArtifactRow:
    """Return an artifact by its opaque id; 404 when missing or not the viewer's to see."""
    found = await find_artifact(connection, request, artifact_id)
    if found is None:
        raise ApiError(f"artifact {artifact_id!r} not found", status=404)
    return found


async def named_artifact(
    connection: AsyncConnection, project_id: int, name: str
) -> ArtifactRow | None:
    """Return a committed version by `collection`, `collection:alias`, `:vN` or `:digest`."""
    collection_name, _, alias = name.partition(":")
    collection = await named_collection(connection, project_id, collection_name)
    return None if collection is None else await member(connection, collection.id, alias or LATEST)


async def member(connection: AsyncConnection, collection_id: int, alias: str) -> ArtifactRow | None:
    """Return a committed version of a collection by vN, alias or digest, in this order.

    An image job has its image's tag as an alias, and a tag may well be v3.
    """
    committed = artifact_select().where(
        artifacts.c.collection_id == collection_id, artifacts.c.state == COMMITTED
    )
    by_alias = select(artifact_aliases.c.artifact_id).where(
        artifact_aliases.c.collection_id == collection_id, artifact_aliases.c.alias == alias
    )
    version = VERSION.fullmatch(alias)
    conditions = [
        artifacts.c.id.in_(by_alias),
        artifacts.c.digest == alias,
    ]
    if version is not None:
        conditions.insert(0, artifacts.c.version_index == int(version.group(1)))
    for condition in conditions:
        found = await load_artifacts(
            connection, committed.where(condition).order_by(artifacts.c.id.desc()).limit(1)
        )
        if found:
            return found[0]
    return None


async def newest_artifact(connection: AsyncConnection, collection_id: int) -> ArtifactRow | None:
    """Return the committed version with the highest number."""
    found = await load_artifacts(
        connection,
        artifact_select()
        .where(artifacts.c.collection_id == collection_id, artifacts.c.state == COMMITTED)
        .order_by(artifacts.c.version_index.desc())
        .limit(1),
    )
    return found[0] if found else None


async def named_collection(
    connection: AsyncConnection, project_id: int, name: str
) -> CollectionRow | None:
    """Return a project's collection by name."""
    return await _collection(
        connection,
        collection_select().where(
            artifact_collections.c.project_id == project_id, artifact_collections.c.name == name
        ),
    )


async def find_collection(
    connection: AsyncConnection, request: Request, collection_id: str
) -> CollectionRow | None:
    """Return a collection by its opaque id, or None when missing or not the viewer's to see."""
    try:
        number = decode_number(collection_id, COLLECTION)
    except ApiError:
        return None
    found = await _collection(
        connection, collection_select().where(artifact_collections.c.id == number)
    )
    return found if found and found.entity_name in request.viewer.entities else None


async def count(connection: AsyncConnection, statement: Select[*tuple[Any, ...]]) -> int:
    """Return how many rows a SELECT has."""
    rows = await connection.execute(select(func.count()).select_from(statement.subquery()))
    return int(rows.scalar_one())


async def _collection(
    connection: AsyncConnection, statement: Select[*tuple[Any, ...]]
) -> CollectionRow | None:
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else CollectionRow(*row)


async def _names(
    connection: AsyncConnection, column: Any, numbers: Sequence[int]
) -> dict[int, tuple[tuple[int, str], ...]]:
    table = column.table
    rows = await connection.execute(
        select(table.c.artifact_id, table.c.id, column)
        .where(table.c.artifact_id.in_(numbers))
        .order_by(table.c.id)
    )
    found: dict[int, tuple[tuple[int, str], ...]] = {}
    for artifact_id, row_id, name in rows:
        found[artifact_id] = (*found.get(artifact_id, ()), (row_id, name))
    return found
