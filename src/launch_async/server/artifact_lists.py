"""Pages of artifact types, collections, versions and files."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_filters import COLLECTIONS, VERSIONS, conditions, ordered
from launch_async.server.artifact_members import load_members, member_number, members_select
from launch_async.server.artifact_rows import (
    COMMITTED,
    GONE,
    ArtifactRow,
    CollectionRow,
    TypeRow,
    artifact_select,
    collection_of,
    collection_select,
    count,
    load_artifacts,
)
from launch_async.server.projects import get_project_by_id
from launch_async.server.run_rows import RunRow, run_of, run_select
from launch_async.server.store.tables.artifacts import (
    artifact_aliases,
    artifact_blobs,
    artifact_collection_tags,
    artifact_collections,
    artifact_files,
    artifact_runs,
    artifact_types,
    artifacts,
)
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.runs import runs
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
    edition: str | None
    """Of the blob that holds its bytes; None for a reference."""


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
    filters: str | None = None,
    order: str | None = None,
    start: int,
    size: int,
) -> Page:
    """Return collections of a project (of one type), the newest first unless ordered otherwise."""
    which = [
        artifact_collections.c.project_id == project_id,
        artifact_collections.c.kind != GONE,
    ]
    if type_id is not None:
        which.append(artifact_collections.c.type_id == type_id)
    universe = (
        select(artifact_collections.c.id)
        .join(artifact_types, artifact_types.c.id == artifact_collections.c.type_id)
        .where(*which)
    )
    wanted = await conditions(connection, COLLECTIONS, filters, universe)
    rows = await connection.execute(
        collection_select()
        .where(*which, wanted)
        .order_by(*ordered(COLLECTIONS, order, artifact_collections.c.id.desc()))
        .offset(start)
        .limit(size)
    )
    total = await count(connection, universe.where(wanted))
    return Page([collection_of(row) for row in rows], start, total)


async def versions_page(
    connection: AsyncConnection,
    collection: CollectionRow,
    *,
    filters: str | None = None,
    order: str | None = None,
    start: int,
    size: int,
) -> Page:
    """Return committed versions of a collection as its members, the newest first by default."""
    number = member_number(collection)
    members = members_select(collection)
    universe = members.with_only_columns(artifacts.c.id)
    wanted = await conditions(connection, VERSIONS, filters, universe)
    order_by = ordered(VERSIONS, order, number.desc(), versionIndex=number, version_index=number)
    rows = await load_members(
        connection,
        collection,
        members.where(wanted).order_by(*order_by).offset(start).limit(size),
    )
    return Page(list(rows), start, await count(connection, universe.where(wanted)))


async def run_page(
    connection: AsyncConnection,
    run: RunRow,
    *,
    role: str,
    entity_names: Sequence[str],
    start: int,
    size: int,
) -> Page:
    """Return the versions of these entities that a run made or used, in the order in which it did.

    Whoever may read a run may not read all that it used: its author may be in more teams.
    """
    which = and_(
        artifact_runs.c.project_id == run.project.id,
        artifact_runs.c.run_name == run.name,
        artifact_runs.c.role == role,
        artifacts.c.state == COMMITTED,
        entities.c.name.in_(entity_names),
    )
    noted = artifact_select().join(artifact_runs, artifact_runs.c.artifact_id == artifacts.c.id)
    rows = await load_artifacts(
        connection, noted.where(which).order_by(artifact_runs.c.id).offset(start).limit(size)
    )
    total = await count(connection, noted.with_only_columns(artifacts.c.id).where(which))
    return Page(list(rows), start, total)


async def files_page(
    connection: AsyncConnection,
    artifact: ArtifactRow,
    *,
    names: Sequence[str] | None,
    start: int,
    size: int,
) -> Page:
    """Return a version's entries by name, references among them: the client loads what is listed.

    Names are looked up in batches, as a database takes only so many parameters.
    """
    if artifact.state != COMMITTED:
        return Page([], start, 0)
    which = artifact_files.c.artifact_id == artifact.id
    files = _files_select(artifact.collection.entity_id).where(which)
    if names is not None:
        found = await _named_files(connection, files, names)
        return Page(list(found[start : start + size]), start, len(found))
    ordered_files = files.order_by(in_order(artifact_files.c.name))
    rows = await connection.execute(ordered_files.offset(start).limit(size))
    return Page([FileRow(*row) for row in rows], start, artifact.file_count)


async def aliases_of(connection: AsyncConnection, collection_id: int) -> list[tuple[int, str]]:
    """Return (row id, alias) of all versions of a collection."""
    rows = await connection.execute(
        select(artifact_aliases.c.id, artifact_aliases.c.alias)
        .where(artifact_aliases.c.collection_id == collection_id)
        .order_by(artifact_aliases.c.id)
    )
    return [(row.id, row.alias) for row in rows]


async def runs_of(
    connection: AsyncConnection,
    artifact_id: int,
    *,
    role: str,
    entity_names: Sequence[str],
    limit: int | None = None,
) -> list[RunRow]:
    """Return the runs that made or used a version, as far as they exist and are of these entities.

    In the order in which they did; the runs of one project come with one query.
    """
    rows = (
        await connection.execute(
            select(artifact_runs.c.project_id, artifact_runs.c.run_name)
            .where(artifact_runs.c.artifact_id == artifact_id, artifact_runs.c.role == role)
            .order_by(artifact_runs.c.id)
            .limit(limit)
        )
    ).all()
    found: dict[tuple[int, str], RunRow] = {}
    for project_id in dict.fromkeys(row.project_id for row in rows):
        project = await get_project_by_id(connection, project_id)
        if project is None or project.entity_name not in entity_names:
            continue
        names = [row.run_name for row in rows if row.project_id == project_id]
        for start in range(0, len(names), NAMES_AT_ONCE):
            some = runs.c.name.in_(names[start : start + NAMES_AT_ONCE])
            statement = run_select().where(runs.c.project_id == project_id, some)
            for row in await connection.execute(statement):
                run = run_of(row, project)
                found[project_id, run.name] = run
    return [found[place] for row in rows if (place := (row.project_id, row.run_name)) in found]


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


async def tags_by_collection(
    connection: AsyncConnection, numbers: Sequence[int]
) -> dict[int, list[tuple[int, str]]]:
    """Return (row id, name) of the tags of each of these collections, by name."""
    rows = await connection.execute(
        select(
            artifact_collection_tags.c.collection_id,
            artifact_collection_tags.c.id,
            artifact_collection_tags.c.name,
        )
        .where(artifact_collection_tags.c.collection_id.in_(numbers))
        .order_by(in_order(artifact_collection_tags.c.name))
    )
    found: dict[int, list[tuple[int, str]]] = {number: [] for number in numbers}
    for collection_id, number, name in rows:
        found[collection_id].append((number, name))
    return found


def _files_select(entity_id: int) -> Select[*tuple[Any, ...]]:
    return select(
        artifact_files.c.name,
        artifact_files.c.digest,
        artifact_files.c.md5,
        artifact_files.c.size,
        artifact_files.c.ref,
        artifact_blobs.c.edition,
    ).join(
        artifact_blobs,
        and_(artifact_blobs.c.entity_id == entity_id, artifact_blobs.c.md5 == artifact_files.c.md5),
        isouter=True,
    )


async def _named_files(
    connection: AsyncConnection, files: Select[*tuple[Any, ...]], names: Sequence[str]
) -> list[FileRow]:
    wanted = sorted(set(names))
    found: list[FileRow] = []
    for start in range(0, len(wanted), NAMES_AT_ONCE):
        chunk = wanted[start : start + NAMES_AT_ONCE]
        statement = files.where(artifact_files.c.name.in_(chunk))
        rows = await connection.execute(statement.order_by(in_order(artifact_files.c.name)))
        found += [FileRow(*row) for row in rows]
    return found
