"""The commit of a version: its manifest is read, its files are checked, it gets its number.

    uploaded manifests -> one, merged if need be -> every blob held -> COMMITTED

What is read of the blobs is read outside the transaction, which then insists that it is still so.
"""

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_access import require_writable_artifact
from launch_async.server.artifact_blobs import hold_blobs
from launch_async.server.artifact_links import commit_links
from launch_async.server.artifact_manifests import (
    FULL,
    FULL_NAME,
    Manifest,
    ManifestRow,
    add_manifest,
    read_document,
    read_manifest,
    uploaded_manifests,
)
from launch_async.server.artifact_merges import digest_of, merge, sources_of
from launch_async.server.artifact_rows import DELETED, PENDING, ArtifactRow
from launch_async.server.artifacts import finish_artifact, locked, reload
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.store.tables.artifacts import (
    artifact_files,
    artifact_manifests,
    blob_garbage,
)

ROWS_AT_ONCE: Final = 500
NAMES_SHOWN: Final = 3


class Draft(msgspec.Struct, frozen=True):
    """What a version is about to hold."""

    uploaded: list[ManifestRow]
    """What it was made of; with another one the draft is void."""
    manifest: Manifest
    digest: str
    merged: bytes | None
    """A manifest of our own making; None: the client's stands as it is."""


async def commit_artifact(request: Request, artifact_id: str) -> ArtifactRow:
    """Commit a version by its opaque id; one that is committed already is returned as it is."""
    while True:
        async with request.store.read() as connection:
            row = await require_writable_artifact(connection, request, artifact_id)
            uploaded = await uploaded_manifests(connection, row.id)
            if row.state == DELETED:
                raise ApiError("this artifact was deleted; log it again", status=409)
            if row.state != PENDING:
                return row
            if not uploaded:
                raise ApiError("this artifact has no manifest yet; upload it before the commit")
            sources = await sources_of(connection, row, uploaded)
        draft = await _draft(request, row, uploaded, sources)
        made = None if draft.merged is None else await _store(request, row, draft.merged)
        try:
            row = await _commit(request, row, draft, made)
        except ApiError:
            if made is not None:
                async with request.store.write() as connection:
                    await _discard(connection, made)
            raise
        if row.state != PENDING:
            return row


async def _draft(
    request: Request, row: ArtifactRow, uploaded: list[ManifestRow], sources: list[ManifestRow]
) -> Draft:
    documents = [await read_document(request.blobs, each) for each in sources]
    if len(documents) == 1 and sources[0].kind == FULL:
        return Draft(uploaded, read_manifest(documents[0]), row.digest, None)
    merged = merge(documents)
    manifest = read_manifest(merged)
    return Draft(uploaded, manifest, digest_of(manifest), merged)


async def _store(request: Request, row: ArtifactRow, document: bytes) -> ManifestRow:
    digest = hashlib.md5(document, usedforsecurity=False).digest()
    async with request.store.write() as connection:
        made = await add_manifest(
            connection,
            row,
            name=FULL_NAME,
            digest=base64.b64encode(digest).decode(),
            now=request.now(),
        )

    async def whole() -> AsyncIterator[bytes]:
        yield document

    await request.blobs.put(made.key, whole())
    return msgspec.structs.replace(made, size=len(document))


async def _commit(
    request: Request, row: ArtifactRow, draft: Draft, made: ManifestRow | None
) -> ArtifactRow:
    """Commit what was read; it stays PENDING when a newer manifest came in the meantime."""
    contents = draft.manifest.contents
    async with request.store.write() as connection:
        row = await locked(connection, row)
        uploaded = await uploaded_manifests(connection, row.id)
        if row.state != PENDING or uploaded != draft.uploaded:
            if made is not None:
                await _discard(connection, made)
            return row
        await _hold(connection, row, draft.manifest)
        if made is not None:
            await connection.execute(
                update(artifact_manifests)
                .where(artifact_manifests.c.id == made.id)
                .values(size=made.size)
            )
        await finish_artifact(
            connection,
            row,
            digest=draft.digest,
            size=sum(entry.size for entry in contents.values()),
            file_count=len(contents),
            now=request.now(),
        )
        await commit_links(connection, row, now=request.now())
        return await reload(connection, row.id)


async def _discard(connection: AsyncConnection, made: ManifestRow) -> None:
    await connection.execute(blob_garbage.insert().values(key=made.key))
    await connection.execute(delete(artifact_manifests).where(artifact_manifests.c.id == made.id))


async def _hold(connection: AsyncConnection, row: ArtifactRow, manifest: Manifest) -> None:
    """Hold every blob of a version, and keep its entries where they can be asked for."""
    digests = {name: entry.md5 for name, entry in manifest.contents.items()}
    sizes = await hold_blobs(
        connection,
        row.collection.entity_id,
        {md5 for md5 in digests.values() if md5 is not None},
    )
    missing = [name for name, md5 in digests.items() if md5 is not None and md5 not in sizes]
    if missing:
        raise ApiError(
            f"{len(missing)} files of this artifact were not uploaded, "
            f"such as {', '.join(missing[:NAMES_SHOWN])}; log it again"
        )
    rows: list[dict[str, Any]] = []
    for name, entry in manifest.contents.items():
        md5 = digests[name]
        if md5 is not None and entry.size != sizes[md5]:
            raise ApiError(
                f"the manifest says that {name} has {entry.size} bytes, and {sizes[md5]} were "
                "uploaded; log it again"
            )
        rows.append(
            {
                "artifact_id": row.id,
                "name": name,
                "digest": entry.digest,
                "md5": md5,
                "size": entry.size,
                "birth_artifact": entry.birth_artifact_id,
                "ref": entry.ref,
            }
        )
    for start in range(0, len(rows), ROWS_AT_ONCE):
        await connection.execute(artifact_files.insert(), rows[start : start + ROWS_AT_ONCE])
