"""Artifacts as they are read: versions with their collection, type, aliases and tags."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number
from launch_async.server.projects import PROJECT_COLUMNS, ProjectRow
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
SEQUENCE: Final = "SEQUENCE"
PORTFOLIO: Final = "PORTFOLIO"
GONE: Final = "GONE"
"""Kind of a collection that was deleted, until it is swept."""


class TypeRow(msgspec.Struct, frozen=True):
    """A type of artifacts in one project."""

    id: int
    project_id: int
    name: str
    description: str | None
    created_at: datetime


class CollectionRow(msgspec.Struct, frozen=True):
    """Versions under one name: a sequence of its own ones, or a portfolio of links to others'."""

    id: int
    type_id: int
    name: str
    kind: str
    description: str | None
    created_at: datetime
    updated_at: datetime | None
    type_name: str
    type_created_at: datetime
    project: ProjectRow

    @property
    def project_id(self) -> int:
        """Row id of the project."""
        return self.project.id

    @property
    def entity_id(self) -> int:
        """Row id of the entity."""
        return self.project.entity_id

    @property
    def entity_name(self) -> str:
        """Name of the entity."""
        return self.project.entity_name

    @property
    def is_portfolio(self) -> bool:
        """Whether it holds links."""
        return self.kind == PORTFOLIO


class AliasRow(msgspec.Struct, frozen=True):
    """An alias of a version in one of the collections that it is in."""

    id: int
    name: str
    collection: CollectionRow


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
    distributed_id: str | None
    ttl_seconds: int | None
    history_step: int | None
    size: int
    file_count: int
    wanted_aliases: str
    created_by: int | None
    created_at: datetime
    updated_at: datetime | None
    aliases: tuple[AliasRow, ...] = ()
    """In its own collection and in the portfolios that link it."""
    tags: tuple[tuple[int, str], ...] = ()
    """(row id, name) of each."""

    def aliases_in(self, collection_id: int) -> tuple[AliasRow, ...]:
        """Return its aliases in one collection."""
        return tuple(alias for alias in self.aliases if alias.collection.id == collection_id)


OWN_COLUMNS = ArtifactRow.__struct_fields__[2:18]
COLLECTION_COLUMNS = (
    artifact_collections.c.id,
    artifact_collections.c.type_id,
    artifact_collections.c.name,
    artifact_collections.c.kind,
    artifact_collections.c.description,
    artifact_collections.c.created_at,
    artifact_collections.c.updated_at,
    artifact_types.c.name,
    artifact_types.c.created_at,
)
OWN_FIELDS = CollectionRow.__struct_fields__[:-1]
WIDTH = len(COLLECTION_COLUMNS) + len(PROJECT_COLUMNS)


def collection_select() -> Select[*tuple[Any, ...]]:
    """Return a SELECT whose rows are CollectionRow's fields."""
    return (
        select(*COLLECTION_COLUMNS, *PROJECT_COLUMNS)
        .select_from(artifact_collections)
        .join(artifact_types, artifact_types.c.id == artifact_collections.c.type_id)
        .join(projects, projects.c.id == artifact_collections.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
    )


def artifact_select() -> Select[*tuple[Any, ...]]:
    """Return a SELECT whose rows `load_artifacts` understands."""
    return (
        select(
            *COLLECTION_COLUMNS,
            *PROJECT_COLUMNS,
            artifacts.c.id,
            *(artifacts.c[name] for name in OWN_COLUMNS),
        )
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
    rows = (await connection.execute(statement)).all()
    numbers = [row[WIDTH] for row in rows]
    known = {row[0]: collection_of(row) for row in rows}
    aliases = await _aliases(connection, numbers, known)
    tags = await _tags(connection, numbers)
    found: list[ArtifactRow] = []
    for row in rows:
        number = row[WIDTH]
        own = dict(zip(OWN_COLUMNS, row[WIDTH + 1 : WIDTH + 1 + len(OWN_COLUMNS)], strict=True))
        own.update(aliases=tuple(aliases.get(number, ())), tags=tuple(tags.get(number, ())))
        found.append(ArtifactRow(id=number, collection=known[row[0]], **own))
    return found


def collection_of(row: Sequence[Any]) -> CollectionRow:
    """Return the collection that a row of `collection_select` or `artifact_select` begins with."""
    own: Sequence[Any] = row[: len(COLLECTION_COLUMNS)]
    project = ProjectRow(*row[len(COLLECTION_COLUMNS) : WIDTH])
    return CollectionRow(**dict(zip(OWN_FIELDS, own, strict=True)), project=project)


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
        connection,
        collection_select().where(
            artifact_collections.c.id == number, artifact_collections.c.kind != GONE
        ),
    )
    return found if found and found.entity_name in request.viewer.entities else None


async def require_collection(
    connection: AsyncConnection, request: Request, collection_id: str
) -> CollectionRow:
    """Return a collection by its opaque id; 404 when missing or not the viewer's to see."""
    found = await find_collection(connection, request, collection_id)
    if found is None:
        raise ApiError(f"artifact collection {collection_id!r} not found", status=404)
    return found


async def collections_by_number(
    connection: AsyncConnection, numbers: Collection[int]
) -> dict[int, CollectionRow]:
    """Return collections by row id. The caller checks that the viewer may see them."""
    if not numbers:
        return {}
    rows = await connection.execute(
        collection_select().where(artifact_collections.c.id.in_(numbers))
    )
    return {row[0]: collection_of(row) for row in rows}


async def count(connection: AsyncConnection, statement: Select[*tuple[Any, ...]]) -> int:
    """Return how many rows a SELECT has."""
    rows = await connection.execute(select(func.count()).select_from(statement.subquery()))
    return int(rows.scalar_one())


async def _collection(
    connection: AsyncConnection, statement: Select[*tuple[Any, ...]]
) -> CollectionRow | None:
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else collection_of(row)


async def _aliases(
    connection: AsyncConnection, numbers: Sequence[int], known: dict[int, CollectionRow]
) -> dict[int, list[AliasRow]]:
    rows = (
        await connection.execute(
            select(
                artifact_aliases.c.artifact_id,
                artifact_aliases.c.id,
                artifact_aliases.c.alias,
                artifact_aliases.c.collection_id,
            )
            .where(artifact_aliases.c.artifact_id.in_(numbers))
            .order_by(artifact_aliases.c.id)
        )
    ).all()
    others = await collections_by_number(
        connection, {row.collection_id for row in rows} - known.keys()
    )
    collections = known | others
    found: dict[int, list[AliasRow]] = {}
    for artifact_id, number, name, collection_id in rows:
        collection = collections.get(collection_id)
        if collection is not None:  # on PostgreSQL it may have gone since the first query
            found.setdefault(artifact_id, []).append(AliasRow(number, name, collection))
    return found


async def _tags(
    connection: AsyncConnection, numbers: Sequence[int]
) -> dict[int, list[tuple[int, str]]]:
    rows = await connection.execute(
        select(artifact_tags.c.artifact_id, artifact_tags.c.id, artifact_tags.c.name)
        .where(artifact_tags.c.artifact_id.in_(numbers))
        .order_by(artifact_tags.c.id)
    )
    found: dict[int, list[tuple[int, str]]] = {}
    for artifact_id, number, name in rows:
        found.setdefault(artifact_id, []).append((number, name))
    return found
