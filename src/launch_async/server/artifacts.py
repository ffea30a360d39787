"""How versions of artifacts come to be, get their names, and go.

    PENDING -commit-> COMMITTED -delete-> DELETED

A version gets its number and its aliases by the commit. The same client id, or the same digest in
the same collection, always leads to the same version, so that repeating a creation does no harm.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_aliases import (
    pass_latest_on,
    put_aliases,
    take_aliases,
    wanted_aliases,
)
from launch_async.server.artifact_collections import next_number
from launch_async.server.artifact_locks import lock_all_versions, lock_versions
from launch_async.server.artifact_members import memberships_of
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
)
from launch_async.server.errors import ApiError
from launch_async.server.projects import check_name
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import (
    artifact_aliases,
    artifact_links,
    artifact_pending_blobs,
    artifact_runs,
    artifact_tags,
    artifacts,
)

INPUT: Final = "input"
OUTPUT: Final = "output"
TTL_INHERITED: Final = -1
TTL_DISABLED: Final = -2
CHANGEABLE: Final = ("description", "metadata", "labels")

Json = dict[str, Any]


async def create_artifact(
    connection: AsyncConnection,
    collection: CollectionRow,
    given: Json,
    *,
    user_id: int,
    now: datetime,
) -> ArtifactRow:
    """Return the version that a client is about to upload, or has already uploaded.

    PENDING: the client goes on with its upload. COMMITTED: the same bytes are here; the aliases and
    tags are put on that version and the client stops.
    """
    if given.get("digest_algorithm") not in {None, "MANIFEST_MD5"}:
        raise ApiError("this server keeps files by their MD5; log the artifact with MD5 digests")
    aliases = wanted_aliases(collection.name, given.get("aliases") or [])
    await lock_versions(connection, collection.id)
    found = await _same(connection, collection, given)
    if found is None:
        return await _insert(connection, collection, given, aliases, user_id=user_id, now=now)
    await _add_tags(connection, found.id, given.get("tags") or [])
    if found.state == COMMITTED:
        await put_aliases(connection, found, collection.id, aliases)
    else:
        merged = sorted({*msgspec.json.decode(found.wanted_aliases), *aliases})
        await connection.execute(
            update(artifacts)
            .where(artifacts.c.id == found.id)
            .values(
                **_changes(found.created_at, given),
                wanted_aliases=msgspec.json.encode(merged).decode(),
                updated_at=now,
            )
        )
    return await reload(connection, found.id)


async def finish_artifact(
    connection: AsyncConnection,
    row: ArtifactRow,
    *,
    digest: str,
    size: int,
    file_count: int,
    now: datetime,
) -> None:
    """Make a `locked` PENDING version a COMMITTED one, with its number, aliases and `latest`."""
    number = await next_number(connection, row.collection.id, now=now)
    await connection.execute(
        update(artifacts)
        .where(artifacts.c.id == row.id)
        .values(
            state=COMMITTED,
            version_index=number,
            digest=digest,
            size=size,
            file_count=file_count,
            updated_at=now,
        )
    )
    await connection.execute(
        delete(artifact_pending_blobs).where(artifact_pending_blobs.c.artifact_id == row.id)
    )
    wanted = msgspec.json.decode(row.wanted_aliases)
    await put_aliases(connection, row, row.collection.id, [*wanted, LATEST])


async def update_artifact(
    connection: AsyncConnection, row: ArtifactRow, given: Json, *, now: datetime
) -> ArtifactRow:
    """Change what may change of a `locked` version; null leaves a field as it is."""
    if row.state == DELETED:
        raise ApiError("this version was deleted", status=404)
    await connection.execute(
        update(artifacts)
        .where(artifacts.c.id == row.id)
        .values(**_changes(row.created_at, given), updated_at=now)
    )
    if given.get("aliases") is not None:
        if row.state != COMMITTED:  # an alias would leave a version that can be had for it
            raise ApiError("only a committed version can have aliases")
        wanted = wanted_aliases(row.collection.name, given["aliases"])
        old = [each.name for each in row.aliases_in(row.collection.id) if each.name not in wanted]
        await take_aliases(connection, row, row.collection.id, old)
        await put_aliases(connection, row, row.collection.id, wanted)
    await _add_tags(connection, row.id, given.get("tags_to_add") or [])
    gone = [tag["tag_name"] for tag in given.get("tags_to_delete") or []]
    await connection.execute(
        delete(artifact_tags).where(
            artifact_tags.c.artifact_id == row.id, artifact_tags.c.name.in_(gone)
        )
    )
    return await reload(connection, row.id)


async def touch(connection: AsyncConnection, row: ArtifactRow, *, now: datetime) -> None:
    """Note that the upload of a version goes on."""
    await connection.execute(
        update(artifacts)
        .where(artifacts.c.id == row.id, artifacts.c.state == PENDING)
        .values(updated_at=now)
    )


async def delete_artifact(
    connection: AsyncConnection, row: ArtifactRow, *, delete_aliases: bool, now: datetime
) -> ArtifactRow:
    """Delete a `locked` version and the links to it; `latest` goes to the newest that is left.

    Its record stays as DELETED, since jobs refer to artifacts by id. What it holds is the sweep's.
    """
    if row.state == DELETED:
        return row
    named = sorted({alias.name for alias in row.aliases if alias.name != LATEST})
    if named and not delete_aliases:
        raise ApiError(
            f"this version has the aliases {', '.join(named)}; take them off first, "
            "or delete it with delete_aliases=True"
        )
    places = await memberships_of(connection, row)
    links = [place.collection.id for place in places if place.collection.is_portfolio]
    await lock_all_versions(connection, links)
    await connection.execute(
        delete(artifact_aliases).where(artifact_aliases.c.artifact_id == row.id)
    )
    await connection.execute(delete(artifact_links).where(artifact_links.c.artifact_id == row.id))
    await connection.execute(
        update(artifacts).where(artifacts.c.id == row.id).values(state=DELETED, updated_at=now)
    )
    for place in places:
        if any(alias.name == LATEST for alias in place.aliases):
            await pass_latest_on(connection, place.collection)
    return await reload(connection, row.id)


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


async def locked(connection: AsyncConnection, row: ArtifactRow) -> ArtifactRow:
    """Return a version as it is now and stays until the transaction ends."""
    await lock_versions(connection, row.collection.id)
    return await reload(connection, row.id)


async def reload(connection: AsyncConnection, artifact_id: int) -> ArtifactRow:
    """Return a version as it is now."""
    found = await artifact_by_number(connection, artifact_id)
    if found is None:
        raise ApiError("this artifact is gone", status=404)
    return found


async def _same(
    connection: AsyncConnection, collection: CollectionRow, given: Json
) -> ArtifactRow | None:
    """Return the version that this creation repeats: by client id first, then by digest.

    Runs that make one version together have a distributed id in place of a digest.
    """
    here = artifact_select().where(artifacts.c.collection_id == collection.id)
    client_id, shared = given.get("client_id"), given.get("distributed_id")
    conditions: list[Any] = []
    if client_id:
        conditions.append((artifacts.c.client_id == client_id) & (artifacts.c.state != DELETED))
    if shared:
        conditions.append((artifacts.c.distributed_id == shared) & (artifacts.c.state == PENDING))
    elif given.get("enable_digest_deduplication") is not False:
        # An upload that another client has begun may be finished by this one, with the same bytes.
        begun = (artifacts.c.state == PENDING) & artifacts.c.distributed_id.is_(None)
        conditions.append(
            (artifacts.c.digest == given["digest"]) & ((artifacts.c.state == COMMITTED) | begun)
        )
    for condition in conditions:
        found = await load_artifacts(
            connection,
            here.where(condition)
            .order_by(artifacts.c.state, artifacts.c.id.desc())  # COMMITTED sorts before PENDING
            .limit(1),
        )
        if found:
            return found[0]
    return None


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
            **_changes(now, given),
            collection_id=collection.id,
            state=PENDING,
            digest=given["digest"],
            digest_algorithm="MANIFEST_MD5",
            client_id=given.get("client_id"),
            distributed_id=given.get("distributed_id"),
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


def _changes(created_at: datetime, given: Json) -> Json:
    changes: Json = {name: given[name] for name in CHANGEABLE if given.get(name) is not None}
    ttl = given.get("ttl_duration_seconds")
    if ttl is None:
        return changes
    if ttl <= 0 and ttl not in {TTL_INHERITED, TTL_DISABLED}:
        raise ApiError(
            f"a time to live is a positive number of seconds, {TTL_INHERITED} for the team's or "
            f"{TTL_DISABLED} for none, not {ttl}"
        )
    changes["ttl_seconds"] = None if ttl == TTL_INHERITED else ttl
    changes["expires_at"] = _end_of(created_at, ttl)
    return changes


def _end_of(created_at: datetime, ttl_seconds: int) -> datetime | None:
    if ttl_seconds <= 0:
        return None
    try:
        return created_at + timedelta(seconds=ttl_seconds)
    except OverflowError:
        return None  # past the year 9999
