"""How versions of artifacts come to be, get their names, and go.

    PENDING -commit-> COMMITTED -delete-> DELETED

A version gets its number and its aliases by the commit. The same client id, or the same digest in
the same collection, always leads to the same version, so that repeating a creation does no harm.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_locks import lock_versions
from launch_async.server.artifact_rows import (
    COMMITTED,
    DELETED,
    LATEST,
    PENDING,
    ArtifactRow,
    CollectionRow,
    artifact_by_number,
    artifact_select,
    load_artifacts,
    named_collection,
    newest_artifact,
)
from launch_async.server.errors import ApiError
from launch_async.server.projects import ProjectRow, check_name
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import (
    artifact_aliases,
    artifact_collections,
    artifact_runs,
    artifact_tags,
    artifact_types,
    artifacts,
)

INPUT: Final = "input"
OUTPUT: Final = "output"
MAX_ALIAS: Final = 128
CHANGEABLE: Final = {
    "description": "description",
    "metadata": "metadata",
    "labels": "labels",
    "ttl_duration_seconds": "ttl_seconds",
}

Json = dict[str, Any]


async def ensure_collection(
    connection: AsyncConnection, project: ProjectRow, *, name: str, type_name: str, now: datetime
) -> CollectionRow:
    """Return the collection, made when missing; 400 when it is one of another type."""
    check_name("artifact", name)
    check_name("artifact type", type_name)
    found = await named_collection(connection, project.id, name)
    if found is None:
        kind = {"project_id": project.id, "name": type_name}
        await connection.execute(
            insert(connection, artifact_types)
            .values(**kind, created_at=now)
            .on_conflict_do_nothing()
        )
        type_id = select(artifact_types.c.id).filter_by(**kind).scalar_subquery()
        await connection.execute(
            insert(connection, artifact_collections)
            .values(
                project_id=project.id, type_id=type_id, name=name, next_version=0, created_at=now
            )
            .on_conflict_do_nothing()
        )
        found = await named_collection(connection, project.id, name)
    if found is None:
        raise ApiError("the project of this artifact is gone", status=404)
    if found.type_name != type_name:
        raise ApiError(
            f"artifact {name!r} is of type {found.type_name!r} already, not {type_name!r}; "
            "take another name or that type"
        )
    return found


async def create_artifact(
    connection: AsyncConnection,
    collection: CollectionRow,
    given: Json,
    *,
    user_id: int,
    now: datetime,
) -> ArtifactRow:
    """Return the version that a client is about to upload, or has already uploaded.

    PENDING: the client goes on with its upload. COMMITTED: the same bytes are here; the aliases are
    put on that version and the client stops.
    """
    aliases = _wanted(collection, given.get("aliases") or [])
    await lock_versions(connection, collection.id)
    found = await _same(connection, collection, given)
    if found is None:
        return await _insert(connection, collection, given, aliases, user_id=user_id, now=now)
    if found.state == COMMITTED:
        await put_aliases(connection, found, aliases)
    else:
        merged = sorted({*msgspec.json.decode(found.wanted_aliases), *aliases})
        wanted = msgspec.json.encode(merged).decode()
        await connection.execute(
            update(artifacts)
            .where(artifacts.c.id == found.id)
            .values(**_changes(given), wanted_aliases=wanted)
        )
    return await reload(connection, found.id)


async def commit_artifact(
    connection: AsyncConnection, artifact: ArtifactRow, *, size: int, file_count: int, now: datetime
) -> None:
    """Give a PENDING version its number, its aliases and `latest`."""
    numbered = await connection.execute(
        update(artifact_collections)
        .where(artifact_collections.c.id == artifact.collection.id)
        .values(next_version=artifact_collections.c.next_version + 1, updated_at=now)
        .returning(artifact_collections.c.next_version)
    )
    await connection.execute(
        update(artifacts)
        .where(artifacts.c.id == artifact.id)
        .values(
            state=COMMITTED,
            version_index=numbered.scalar_one() - 1,
            size=size,
            file_count=file_count,
            updated_at=now,
        )
    )
    await put_aliases(connection, artifact, [*msgspec.json.decode(artifact.wanted_aliases), LATEST])


async def put_aliases(
    connection: AsyncConnection, artifact: ArtifactRow, aliases: Iterable[str]
) -> None:
    """Put aliases on a version; each leaves the version of the collection that had it."""
    for alias in dict.fromkeys(aliases):
        _check_alias(alias)
        statement = insert(connection, artifact_aliases).values(
            collection_id=artifact.collection.id, artifact_id=artifact.id, alias=alias
        )
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["collection_id", "alias"], set_={"artifact_id": artifact.id}
            )
        )


async def take_aliases(
    connection: AsyncConnection, artifact: ArtifactRow, aliases: Sequence[str]
) -> None:
    """Take aliases off a version; those it has not are no error."""
    await connection.execute(
        delete(artifact_aliases).where(
            artifact_aliases.c.artifact_id == artifact.id, artifact_aliases.c.alias.in_(aliases)
        )
    )


async def update_artifact(
    connection: AsyncConnection, artifact: ArtifactRow, given: Json, *, now: datetime
) -> ArtifactRow:
    """Change what may change of a version; null leaves a field as it is."""
    await connection.execute(
        update(artifacts)
        .where(artifacts.c.id == artifact.id)
        .values(**_changes(given), updated_at=now)
    )
    if given.get("aliases") is not None:
        if artifact.state != COMMITTED:  # an alias would leave a version that can be had for it
            raise ApiError("only a committed version can have aliases")
        wanted = _wanted(artifact.collection, given["aliases"])
        old = [alias for _, alias in artifact.aliases if alias not in wanted]
        await take_aliases(connection, artifact, old)
        await put_aliases(connection, artifact, wanted)
    await _add_tags(connection, artifact.id, given.get("tags_to_add") or [])
    gone = [tag["tag_name"] for tag in given.get("tags_to_delete") or []]
    await connection.execute(
        delete(artifact_tags).where(
            artifact_tags.c.artifact_id == artifact.id, artifact_tags.c.name.in_(gone)
        )
    )
    return await reload(connection, artifact.id)


async def delete_artifact(
    connection: AsyncConnection, artifact: ArtifactRow, *, delete_aliases: bool, now: datetime
) -> None:
    """Delete a version; `latest` goes to the newest that is left.

    Its record stays as DELETED, since jobs refer to artifacts by id. Its bytes stay too: other
    versions may hold the same.
    """
    named = [alias for _, alias in artifact.aliases if alias != LATEST]
    if named and not delete_aliases:
        raise ApiError(
            f"this version has the aliases {', '.join(named)}; take them off first, "
            "or delete it with delete_aliases=True"
        )
    had_latest = len(named) < len(artifact.aliases)
    await take_aliases(connection, artifact, [alias for _, alias in artifact.aliases])
    await connection.execute(
        update(artifacts).where(artifacts.c.id == artifact.id).values(state=DELETED, updated_at=now)
    )
    newest = await newest_artifact(connection, artifact.collection.id)
    if had_latest and newest is not None:
        await put_aliases(connection, newest, [LATEST])


async def note_run(
    connection: AsyncConnection,
    artifact_id: int,
    *,
    project_id: int,
    run_name: str,
    role: str,
    used_as: str | None = None,
    now: datetime,
) -> None:
    """Note that a run made or used a version; once is enough."""
    await connection.execute(
        insert(connection, artifact_runs)
        .values(
            artifact_id=artifact_id,
            project_id=project_id,
            run_name=run_name,
            role=role,
            used_as=used_as,
            created_at=now,
        )
        .on_conflict_do_nothing()
    )


async def locked(connection: AsyncConnection, artifact: ArtifactRow) -> ArtifactRow:
    """Return a version as it is now and stays until the transaction ends."""
    await lock_versions(connection, artifact.collection.id)
    return await reload(connection, artifact.id)


async def reload(connection: AsyncConnection, artifact_id: int) -> ArtifactRow:
    """Return a version as it is now."""
    found = await artifact_by_number(connection, artifact_id)
    if found is None:
        raise ApiError("this artifact is gone", status=404)
    return found


async def _same(
    connection: AsyncConnection, collection: CollectionRow, given: Json
) -> ArtifactRow | None:
    """Return the version that this creation repeats: by client id first, then by digest."""
    here = artifact_select().where(
        artifacts.c.collection_id == collection.id, artifacts.c.state != DELETED
    )
    client_id = given.get("client_id")
    if client_id:
        found = await load_artifacts(connection, here.where(artifacts.c.client_id == client_id))
        if found:
            return found[0]
    if given.get("enable_digest_deduplication") is False:
        return None
    # An upload that another client has begun may be finished by this one, with the same bytes.
    ready = or_(artifacts.c.state == COMMITTED, artifacts.c.state == PENDING)
    found = await load_artifacts(
        connection,
        here.where(artifacts.c.digest == given["digest"], ready)
        .order_by(artifacts.c.state, artifacts.c.id.desc())  # COMMITTED sorts before PENDING
        .limit(1),
    )
    return found[0] if found else None


async def _insert(
    connection: AsyncConnection,
    collection: CollectionRow,
    given: Json,
    aliases: list[str],
    *,
    user_id: int,
    now: datetime,
) -> ArtifactRow:
    made = await connection.execute(
        insert(connection, artifacts)
        .values(
            **_changes(given),
            collection_id=collection.id,
            state=PENDING,
            digest=given["digest"],
            digest_algorithm=given.get("digest_algorithm") or "MANIFEST_MD5",
            client_id=given.get("client_id"),
            history_step=given.get("history_step"),
            size=0,
            file_count=0,
            wanted_aliases=msgspec.json.encode(aliases).decode(),
            created_by=user_id,
            created_at=now,
        )
        .returning(artifacts.c.id)
    )
    number = int(made.scalar_one())
    await _add_tags(connection, number, given.get("tags") or [])
    return await reload(connection, number)


async def _add_tags(connection: AsyncConnection, artifact_id: int, tags: Sequence[Json]) -> None:
    for tag in tags:
        check_name("tag", tag["tag_name"])
        await connection.execute(
            insert(connection, artifact_tags)
            .values(artifact_id=artifact_id, name=tag["tag_name"])
            .on_conflict_do_nothing()
        )


def _changes(given: Json) -> Json:
    return {
        column: given[name] for name, column in CHANGEABLE.items() if given.get(name) is not None
    }


def _wanted(collection: CollectionRow, aliases: Sequence[Json]) -> list[str]:
    wanted = [
        each["alias"] for each in aliases if each["artifact_collection_name"] == collection.name
    ]
    for alias in wanted:
        _check_alias(alias)
    return wanted


def _check_alias(alias: str) -> None:
    if not 1 <= len(alias) <= MAX_ALIAS or "/" in alias or ":" in alias:
        raise ApiError(f"{alias!r} is not an alias: 1 to {MAX_ALIAS} characters, no '/' or ':'")
