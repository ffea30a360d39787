"""Collections of artifacts: made on demand, renamed, retyped, tagged and deleted.

A portfolio takes a name of the same space as a sequence. A deleted collection keeps its row until
the sweep has let go of what its versions held; it has no name that could be asked for by then.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_locks import lock_all_versions, lock_versions
from launch_async.server.artifact_rows import (
    DELETED,
    GONE,
    SEQUENCE,
    CollectionRow,
    collections_by_number,
    named_collection,
)
from launch_async.server.errors import ApiError
from launch_async.server.projects import ProjectRow, check_name
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import (
    artifact_aliases,
    artifact_collection_tags,
    artifact_collections,
    artifact_links,
    artifact_types,
    artifacts,
)

KEPT_OF_NAME: Final = 100  # characters; the whole has to fit where names do

Json = dict[str, Any]


async def ensure_collection(
    connection: AsyncConnection,
    project: ProjectRow,
    *,
    name: str,
    type_name: str,
    kind: str = SEQUENCE,
    now: datetime,
) -> CollectionRow:
    """Return the collection, made when missing; 400 when it is one of another type or kind."""
    check_name("artifact", name)
    found = await named_collection(connection, project.id, name)
    if found is None:
        type_id = await _ensure_type(connection, project.id, type_name, now=now)
        await connection.execute(
            insert(connection, artifact_collections)
            .values(
                project_id=project.id,
                type_id=type_id,
                name=name,
                kind=kind,
                next_version=0,
                created_at=now,
            )
            .on_conflict_do_nothing()
        )
        found = await named_collection(connection, project.id, name)
    if found is None:
        raise ApiError("the project of this artifact is gone", status=404)
    if found.kind != kind:
        have = "a portfolio, which links versions" if found.is_portfolio else "a sequence"
        raise ApiError(f"{name!r} is {have} already; take another name")
    if found.type_name != type_name:
        raise ApiError(
            f"artifact {name!r} is of type {found.type_name!r} already, not {type_name!r}; "
            "take another name or that type"
        )
    return found


async def next_number(connection: AsyncConnection, collection_id: int, *, now: datetime) -> int:
    """Return the number of the next version of a collection; none is given twice."""
    numbered = await connection.execute(
        update(artifact_collections)
        .where(artifact_collections.c.id == collection_id)
        .values(next_version=artifact_collections.c.next_version + 1, updated_at=now)
        .returning(artifact_collections.c.next_version)
    )
    return int(numbered.scalar_one()) - 1


async def update_collection(
    connection: AsyncConnection, row: CollectionRow, given: Json, *, now: datetime
) -> CollectionRow:
    """Change a collection's name or description; null leaves it as it is."""
    changes: Json = {
        key: given[key] for key in ("name", "description") if given.get(key) is not None
    }
    name = changes.get("name", row.name)
    if name != row.name:
        check_name("artifact", name)
        if await named_collection(connection, row.project_id, name):
            raise ApiError(f"there is an artifact {name!r} already; take another name", status=409)
    return await _change(connection, row, changes, now=now)


async def move_collection(
    connection: AsyncConnection, row: CollectionRow, type_name: str, *, now: datetime
) -> CollectionRow:
    """Give a sequence another type, made when missing; 400 while portfolios link its versions."""
    await lock_versions(connection, row.id)
    linking = await _linking(connection, row)
    if linking:
        names = ", ".join(sorted(f"{each.project.name}/{each.name}" for each in linking.values()))
        raise ApiError(
            f"versions of {row.name!r} are linked by {names}, which hold the type "
            f"{row.type_name!r} only; unlink them first"
        )
    type_id = await _ensure_type(connection, row.project_id, type_name, now=now)
    return await _change(connection, row, {"type_id": type_id}, now=now)


async def tag_collection(
    connection: AsyncConnection, row: CollectionRow, names: Sequence[str]
) -> None:
    """Put tags on a collection; those it has are no error."""
    for name in dict.fromkeys(names):
        check_name("tag", name)
        await connection.execute(
            insert(connection, artifact_collection_tags)
            .values(collection_id=row.id, name=name)
            .on_conflict_do_nothing()
        )


async def untag_collection(
    connection: AsyncConnection, row: CollectionRow, names: Sequence[str]
) -> None:
    """Take tags off a collection; those it has not are no error."""
    await connection.execute(
        delete(artifact_collection_tags).where(
            artifact_collection_tags.c.collection_id == row.id,
            artifact_collection_tags.c.name.in_(names),
        )
    )


async def delete_portfolio(connection: AsyncConnection, row: CollectionRow) -> None:
    """Delete a portfolio with its links; what it linked stays."""
    await connection.execute(
        delete(artifact_collections).where(artifact_collections.c.id == row.id)
    )


async def delete_sequence(
    connection: AsyncConnection, row: CollectionRow, *, now: datetime
) -> list[CollectionRow]:
    """Delete a sequence with all of its versions; return the portfolios that linked any.

    Only marks are made here, however much there is: the rest is the sweep's.
    """
    await lock_versions(connection, row.id)
    own = select(artifacts.c.id).where(artifacts.c.collection_id == row.id)
    portfolios = await _linking(connection, row)
    await lock_all_versions(connection, portfolios.keys())
    for table in (artifact_aliases, artifact_links):
        await connection.execute(delete(table).where(table.c.artifact_id.in_(own)))
    await connection.execute(
        update(artifacts)
        .where(artifacts.c.collection_id == row.id)
        .values(state=DELETED, updated_at=now)
    )
    # No name has a colon in it, so this one clashes with none and cannot be asked for.
    tombstone = f"{row.name[:KEPT_OF_NAME]}:{row.id}"
    await _change(connection, row, {"kind": GONE, "name": tombstone}, now=now)
    return list(portfolios.values())


async def _linking(connection: AsyncConnection, row: CollectionRow) -> dict[int, CollectionRow]:
    """Return the portfolios that link versions of a sequence, by row id."""
    rows = await connection.execute(
        select(artifact_links.c.collection_id)
        .distinct()
        .join(artifacts, artifacts.c.id == artifact_links.c.artifact_id)
        .where(artifacts.c.collection_id == row.id)
    )
    return await collections_by_number(connection, list(rows.scalars()))


async def _change(
    connection: AsyncConnection, row: CollectionRow, changes: Json, *, now: datetime
) -> CollectionRow:
    await connection.execute(
        update(artifact_collections)
        .where(artifact_collections.c.id == row.id)
        .values(**changes, updated_at=now)
    )
    return (await collections_by_number(connection, [row.id]))[row.id]


async def _ensure_type(
    connection: AsyncConnection, project_id: int, name: str, *, now: datetime
) -> int:
    check_name("artifact type", name)
    own = {"project_id": project_id, "name": name}
    await connection.execute(
        insert(connection, artifact_types).values(**own, created_at=now).on_conflict_do_nothing()
    )
    found = await connection.execute(select(artifact_types.c.id).filter_by(**own))
    return int(found.scalar_one())
