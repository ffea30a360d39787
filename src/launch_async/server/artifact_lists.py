"""Pages of artifact types, collections, versions and files."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_rows import (
    COMMITTED,
    ArtifactRow,
    CollectionRow,
    TypeRow,
    artifact_select,
    collection_select,
    count,
    load_artifacts,
)
from launch_async.server.artifacts import OUTPUT
from launch_async.server.run_rows import RunRow
from launch_async.server.store.tables.artifacts import (
    artifact_aliases,
    artifact_collection_tags,
    artifact_collections,
    artifact_files,
    artifact_manifests,
    artifact_runs,
    artifact_types,
    artifacts,
)
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.runs import projects
from launch_async.server.store.tables.texts import in_order


class Page(msgspec.Struct, frozen=True):
    """Some rows of many."""

    rows: list[Any]
    start: int
    total: int

    @property
    def has_next(self) -> bool:
        """Whether there are more rows behind these."""
        return self.start + len(self.rows) < self.total


class FileRow(msgspec.Struct, frozen=True):
    """An entry of a version: a file whose bytes we hold, or a reference to somebody else's."""

    name: str
    digest: str
    md5: str | None
    size: int
    ref: str | None


FILE_SELECT = select(
    artifact_files.c.name,
    artifact_files.c.digest,
    artifact_files.c.md5,
    artifact_files.c.size,
    artifact_files.c.ref,
)
NAMES_AT_ONCE = 500


async def types_of(connection: AsyncConnection, project_id: int) -> list[TypeRow]:
    """Return a project's artifact types by name."""
    rows = await connection.execute(
        select(
            artifact_types.c.id,
            artifact_types.c.project_id,
            artifact_types.c.name,
            artifact_types.c.description,
            artifact_types.c.created_at,
        )
        .where(artifact_types.c.project_id == project_id)
        .order_by(in_order(artifact_types.c.name))
    )
    return [TypeRow(*row) for row in rows]


async def collections_page(
    connection: AsyncConnection,
    project_id: int,
    *,
    type_id: int | None,
    start: int,
    size: int,
) -> Page:
    """Return collections of a project (of one type), the newest first."""
    which = artifact_collections.c.project_id == project_id
    if type_id is not None:
        which = and_(which, artifact_collections.c.type_id == type_id)
    rows = await connection.execute(
        collection_select()
        .where(which)
        .order_by(artifact_collections.c.id.desc())
        .offset(start)
        .limit(size)
    )
    total = await count(connection, select(artifact_collections.c.id).where(which))
    return Page([CollectionRow(*row) for row in rows], start, total)


async def versions_page(
    connection: AsyncConnection,
    collection_id: int,
    *,
    oldest_first: bool,
    start: int,
    size: int,
) -> Page:
    """Return committed versions of a collection."""
    column = artifacts.c.version_index
    which = and_(artifacts.c.collection_id == collection_id, artifacts.c.state == COMMITTED)
    ordered = artifact_select().order_by(column if oldest_first else column.desc())
    return await _versions(connection, ordered, which, start=start, size=size)


async def run_page(
    connection: AsyncConnection,
    run: RunRow,
    *,
    role: str,
    entity_names: Sequence[str],
    start: int,
    size: int,
) -> Page:
    """Return the versions of these entities that a run made or used, in the order of their ids.

    Whoever may read a run may not read all that it used: its author may be in more teams.
    """
    noted = (
        select(artifact_runs.c.artifact_id)
        .join(artifacts, artifacts.c.id == artifact_runs.c.artifact_id)
        .join(artifact_collections, artifact_collections.c.id == artifacts.c.collection_id)
        .join(projects, projects.c.id == artifact_collections.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(
            artifact_runs.c.project_id == run.project.id,
            artifact_runs.c.run_name == run.name,
            artifact_runs.c.role == role,
            entities.c.name.in_(entity_names),
        )
    )
    which = and_(artifacts.c.id.in_(noted), artifacts.c.state == COMMITTED)
    ordered = artifact_select().order_by(artifacts.c.id)
    return await _versions(connection, ordered, which, start=start, size=size)


async def files_page(
    connection: AsyncConnection,
    artifact_id: int,
    *,
    names: Sequence[str] | None,
    start: int,
    size: int,
) -> Page:
    """Return a version's entries by name, references among them: the client loads what is listed.

    Names are looked up in batches, as a database takes only so many parameters.
    """
    which = artifact_files.c.artifact_id == artifact_id
    if names is not None:
        found = await _named_files(connection, which, names)
        return Page(list(found[start : start + size]), start, len(found))
    statement = FILE_SELECT.where(which).order_by(in_order(artifact_files.c.name))
    rows = await connection.execute(statement.offset(start).limit(size))
    total = await count(connection, select(artifact_files.c.name).where(which))
    return Page([FileRow(*row) for row in rows], start, total)


async def aliases_of(connection: AsyncConnection, collection_id: int) -> list[tuple[int, str]]:
    """Return (row id, alias) of all versions of a collection."""
    rows = await connection.execute(
        select(artifact_aliases.c.id, artifact_aliases.c.alias)
        .where(artifact_aliases.c.collection_id == collection_id)
        .order_by(artifact_aliases.c.id)
    )
    return [(row.id, row.alias) for row in rows]


async def tags_of(connection: AsyncConnection, collection_id: int) -> list[tuple[int, str]]:
    """Return (row id, name) of a collection's tags."""
    rows = await connection.execute(
        select(artifact_collection_tags.c.id, artifact_collection_tags.c.name)
        .where(artifact_collection_tags.c.collection_id == collection_id)
        .order_by(in_order(artifact_collection_tags.c.name))
    )
    return [(row.id, row.name) for row in rows]


async def runs_of(
    connection: AsyncConnection, artifact_id: int, *, role: str
) -> list[tuple[int, str]]:
    """Return (project row id, run name) of each run that made or used a version."""
    rows = await connection.execute(
        select(artifact_runs.c.project_id, artifact_runs.c.run_name)
        .where(artifact_runs.c.artifact_id == artifact_id, artifact_runs.c.role == role)
        .order_by(artifact_runs.c.id)
    )
    return [(row.project_id, row.run_name) for row in rows]


async def maker_of(connection: AsyncConnection, artifact_id: int) -> tuple[int, str] | None:
    """Return (project row id, run name) of the run that made a version first."""
    makers = await runs_of(connection, artifact_id, role=OUTPUT)
    return makers[0] if makers else None


async def artifact_of_client_id(
    connection: AsyncConnection, client_id: str, *, entity_names: Sequence[str]
) -> ArtifactRow | None:
    """Return the version of these entities that a client made under its own id."""
    found = await load_artifacts(
        connection,
        artifact_select()
        .where(artifacts.c.client_id == client_id, entities.c.name.in_(entity_names))
        .limit(1),
    )
    return found[0] if found else None


async def artifact_of_manifest(connection: AsyncConnection, manifest_id: int) -> int | None:
    """Return the row id of the version that a manifest belongs to."""
    rows = await connection.execute(
        select(artifact_manifests.c.artifact_id).where(artifact_manifests.c.id == manifest_id)
    )
    return rows.scalar_one_or_none()


async def _named_files(
    connection: AsyncConnection, which: ColumnElement[bool], names: Sequence[str]
) -> list[FileRow]:
    wanted = sorted(set(names))
    found: list[FileRow] = []
    for start in range(0, len(wanted), NAMES_AT_ONCE):
        chunk = wanted[start : start + NAMES_AT_ONCE]
        statement = FILE_SELECT.where(which, artifact_files.c.name.in_(chunk))
        rows = await connection.execute(statement.order_by(in_order(artifact_files.c.name)))
        found += [FileRow(*row) for row in rows]
    return found


async def _versions(
    connection: AsyncConnection,
    ordered: Select[*tuple[Any, ...]],
    which: Any,
    *,
    start: int,
    size: int,
) -> Page:
    rows = await load_artifacts(connection, ordered.where(which).offset(start).limit(size))
    total = await count(connection, select(artifacts.c.id).where(which))
    return Page(list(rows), start, total)
