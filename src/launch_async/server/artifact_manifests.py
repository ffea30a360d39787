"""Manifests: what a client says that a version holds, as it uploads it.

    announced -> its digest known -> PUT manifests/{artifact}/{id} -> read by the commit

FULL: the whole. INCREMENTAL: what is added to another version. PATCH: one of several runs' part.
"""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_blobs import hex_of
from launch_async.server.artifact_locks import lock_versions
from launch_async.server.artifact_rows import DELETED, PENDING, ArtifactRow
from launch_async.server.blobs import BlobInfo, Blobs
from launch_async.server.errors import ApiError
from launch_async.server.services import Expected, Services, UploadRule
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import artifact_manifests, artifacts

KEYS: Final = "manifests"
FULL: Final = "FULL"
INCREMENTAL: Final = "INCREMENTAL"
PATCH: Final = "PATCH"
FULL_NAME: Final = "wandb_manifest.json"
MAX_BYTES: Final = 256 * 1024 * 1024  # a million files; it is read as a whole
MAX_SIZE: Final = 2**50
GONE: Final = "this manifest is gone, and its version with it; log the artifact again"


class ManifestEntry(msgspec.Struct, frozen=True, rename="camel"):
    """One file of a manifest, as the client writes it."""

    digest: str
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)] = 0
    ref: str | None = None
    birth_artifact_id: str | None = msgspec.field(default=None, name="birthArtifactID")

    @property
    def md5(self) -> str | None:
        """Hex MD5 of the bytes that we hold; None for a reference."""
        return None if self.ref is not None else hex_of(self.digest)


class Manifest(msgspec.Struct, frozen=True):
    """A manifest; the rest of its keys is the client's own business."""

    contents: dict[str, ManifestEntry]


class ManifestRow(msgspec.Struct, frozen=True):
    """A manifest that was announced; its size is None until it is here."""

    id: int
    artifact_id: int
    name: str
    kind: str
    base_artifact_id: int | None
    digest: str
    """MD5 in base64; empty until the client knows it."""
    size: int | None

    @property
    def key(self) -> str:
        """Where its bytes are."""
        return manifest_key(self.artifact_id, self.id)


COLUMNS = tuple(artifact_manifests.c[name] for name in ManifestRow.__struct_fields__)


def manifest_key(artifact_id: int, manifest_id: int) -> str:
    """Return the key of a manifest."""
    return f"{KEYS}/{artifact_id}/{manifest_id}"


async def add_manifest(
    connection: AsyncConnection,
    row: ArtifactRow,
    *,
    name: str,
    digest: str,
    kind: str = FULL,
    base_artifact_id: int | None = None,
    now: datetime,
) -> ManifestRow:
    """Note a manifest that is about to be uploaded.

    Two runs that log the same bytes at once share a version: when one has committed it, the
    other's manifest is taken and changes nothing.
    """
    if row.state == DELETED:
        raise ApiError("this artifact was deleted; log it again", status=409)
    if digest:
        hex_of(digest)
    made = await connection.execute(
        insert(connection, artifact_manifests)
        .values(
            artifact_id=row.id,
            name=name,
            kind=kind,
            base_artifact_id=base_artifact_id,
            digest=digest,
            created_at=now,
        )
        .returning(*COLUMNS)
    )
    return ManifestRow(*made.one())


async def change_manifest(
    connection: AsyncConnection, row: ArtifactRow, old: ManifestRow, digest: str, *, now: datetime
) -> ManifestRow:
    """Return the manifest under its digest: the announced one, or one in the place of another."""
    if old.digest in {"", digest} or not digest:
        if digest:
            hex_of(digest)
            await connection.execute(
                update(artifact_manifests)
                .where(artifact_manifests.c.id == old.id)
                .values(digest=digest)
            )
        return msgspec.structs.replace(old, digest=digest or old.digest)
    return await add_manifest(
        connection,
        row,
        name=old.name,
        digest=digest,
        kind=old.kind,
        base_artifact_id=old.base_artifact_id,
        now=now,
    )


async def find_manifest(connection: AsyncConnection, manifest_id: int) -> ManifestRow | None:
    """Return a manifest by its row id. The caller checks that the viewer may see its version."""
    rows = await connection.execute(select(*COLUMNS).where(artifact_manifests.c.id == manifest_id))
    row = rows.one_or_none()
    return None if row is None else ManifestRow(*row)


async def uploaded_manifests(connection: AsyncConnection, artifact_id: int) -> list[ManifestRow]:
    """Return the manifests of a version whose bytes are here, the oldest first."""
    rows = await connection.execute(
        select(*COLUMNS)
        .where(
            artifact_manifests.c.artifact_id == artifact_id, artifact_manifests.c.size.is_not(None)
        )
        .order_by(artifact_manifests.c.id)
    )
    return [ManifestRow(*row) for row in rows]


async def read_document(blobs: Blobs, row: ManifestRow) -> bytes:
    """Read a manifest that is here; 400 when it is too large to be read as a whole."""
    if (row.size or 0) > MAX_BYTES:
        raise ApiError(
            f"the artifact's manifest has {row.size} bytes, and at most {MAX_BYTES} are read; "
            "spread the files over several artifacts"
        )
    return b"".join([chunk async for chunk in await blobs.get(row.key)])


def read_manifest(document: bytes) -> Manifest:
    """Return what a manifest says; 400 when it is none."""
    try:
        return msgspec.json.decode(document, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the artifact's manifest cannot be read: {error}") from error


async def expect_manifest(services: Services, key: str) -> Expected:
    """Take the manifest that was announced, until its version is committed."""
    _, artifact, manifest = key.split("/")
    async with services.store.read() as connection:
        rows = await connection.execute(
            select(artifact_manifests.c.digest, artifact_manifests.c.size, artifacts.c.state)
            .join(artifacts, artifacts.c.id == artifact_manifests.c.artifact_id)
            .where(artifact_manifests.c.id == int(manifest), artifacts.c.id == int(artifact))
        )
        found = rows.one_or_none()
    if found is None:
        raise ApiError(GONE, status=404)
    settled = found.size is not None or found.state != PENDING
    return Expected(md5_hex=hex_of(found.digest), settled=settled)


async def manifest_uploaded(services: Services, key: str, info: BlobInfo) -> None:
    """Note that a manifest is here, unless its version was committed in the meantime."""
    _, artifact, manifest = key.split("/")
    its_row = artifacts.c.id == int(artifact)
    pending = select(artifacts.c.id).where(its_row, artifacts.c.state == PENDING)
    collection = select(artifacts.c.collection_id).where(its_row).scalar_subquery()
    async with services.store.write() as connection:
        await lock_versions(connection, collection)  # a commit reads which manifest is the newest
        await connection.execute(
            update(artifact_manifests)
            .where(
                artifact_manifests.c.id == int(manifest),
                artifact_manifests.c.artifact_id.in_(pending),
            )
            .values(size=info.size)
        )
        known = await find_manifest(connection, int(manifest))
    if known is None:  # swept in the meantime; a committed one may well have come twice
        await services.blobs.delete(key)
        raise ApiError(GONE, status=404)


UPLOADS: Final = UploadRule(expect_manifest, manifest_uploaded)
