"""How the bytes of artifacts arrive: blobs by their MD5, manifests, and what a commit checks.

    place files -> PUT artifacts/{entity}/{md5} -> PUT manifests/{artifact}/{id} -> commit

One blob per entity and MD5, however many versions hold it.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_locks import lock_versions
from launch_async.server.artifact_rows import DELETED, PENDING, ArtifactRow
from launch_async.server.blobs import BlobInfo, Blobs
from launch_async.server.errors import ApiError
from launch_async.server.services import Expected, Services, UploadRule
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import (
    artifact_blobs,
    artifact_files,
    artifact_manifests,
    artifacts,
)

BLOBS: Final = "artifacts"
MANIFESTS: Final = "manifests"
MAX_SIZE: Final = 2**50
MD5_BYTES: Final = 16
ROWS_AT_ONCE: Final = 500
NAMES_SHOWN: Final = 3


class WantedFile(msgspec.Struct, frozen=True):
    """A file that a client wants to store."""

    artifact_id: int
    md5: str
    """Hex."""


class Slot(msgspec.Struct, frozen=True):
    """Where a file goes: its key, the artifact that stored it first, and whether it is here."""

    key: str
    birth_artifact_id: int
    present: bool


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


def blob_key(entity_id: int, md5: str) -> str:
    """Return the key of a blob."""
    return f"{BLOBS}/{entity_id}/{md5}"


def manifest_key(artifact_id: int, manifest_id: int) -> str:
    """Return the key of a manifest."""
    return f"{MANIFESTS}/{artifact_id}/{manifest_id}"


def hex_of(digest: str) -> str:
    """Return the hex form of a base64 MD5; 400 when it is none."""
    try:
        raw = base64.b64decode(digest, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != MD5_BYTES:
        raise ApiError(f"{digest!r} is not an MD5 in base64")
    return raw.hex()


def base64_of(md5: str) -> str:
    """Return the base64 form of a hex MD5."""
    return base64.b64encode(bytes.fromhex(md5)).decode()


async def place_files(
    connection: AsyncConnection, entity_id: int, files: Sequence[WantedFile], *, now: datetime
) -> list[Slot]:
    """Return a slot per file, in the same order; a blob that is here needs no upload."""
    digests = {file.md5 for file in files}
    known = await _known(connection, entity_id, digests)
    fresh = {
        file.md5: {
            "entity_id": entity_id,
            "md5": file.md5,
            "present": False,
            "artifact_id": file.artifact_id,
            "created_at": now,
        }
        for file in reversed(files)  # the first that names a content gives birth to it
        if file.md5 not in known
    }
    if fresh:
        await connection.execute(
            insert(connection, artifact_blobs).on_conflict_do_nothing(),
            [fresh[md5] for md5 in sorted(fresh)],  # in one order: two requests may overlap
        )
        known = await _known(connection, entity_id, digests)
    return [Slot(blob_key(entity_id, file.md5), *known[file.md5]) for file in files]


async def add_manifest(
    connection: AsyncConnection, artifact: ArtifactRow, *, name: str, digest: str, now: datetime
) -> int:
    """Note a manifest that is about to be uploaded, and return its row id. The newest counts.

    Two runs that log the same bytes at once share a version: when one has committed it, the
    other's manifest is taken and changes nothing.
    """
    if artifact.state == DELETED:
        raise ApiError("this artifact was deleted; log it again", status=409)
    if digest:
        hex_of(digest)
    made = await connection.execute(
        insert(connection, artifact_manifests)
        .values(artifact_id=artifact.id, name=name, kind="FULL", digest=digest, created_at=now)
        .returning(artifact_manifests.c.id)
    )
    return int(made.scalar_one())


async def uploaded_manifest(
    connection: AsyncConnection, artifact_id: int
) -> tuple[int, str, str] | None:
    """Return (row id, digest, name) of the newest manifest whose bytes are here."""
    rows = await connection.execute(
        select(artifact_manifests.c.id, artifact_manifests.c.digest, artifact_manifests.c.name)
        .where(
            artifact_manifests.c.artifact_id == artifact_id, artifact_manifests.c.size.is_not(None)
        )
        .order_by(artifact_manifests.c.id.desc())
        .limit(1)
    )
    row = rows.one_or_none()
    return None if row is None else (row.id, row.digest, row.name)


async def read_manifest(blobs: Blobs, artifact_id: int, manifest_id: int) -> Manifest:
    """Read a manifest from the blobs; 400 when it is none."""
    chunks = [chunk async for chunk in await blobs.get(manifest_key(artifact_id, manifest_id))]
    try:
        return msgspec.json.decode(b"".join(chunks), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the artifact's manifest cannot be read: {error}") from error


async def missing_files(
    connection: AsyncConnection, entity_id: int, manifest: Manifest
) -> list[str]:
    """Return the names of files whose bytes never came."""
    wanted = {name: entry.md5 for name, entry in manifest.contents.items()}
    known = await _known(connection, entity_id, {md5 for md5 in wanted.values() if md5 is not None})
    return [
        name
        for name, md5 in wanted.items()
        if md5 is not None and not known.get(md5, (0, False))[1]
    ]


async def store_entries(connection: AsyncConnection, artifact_id: int, manifest: Manifest) -> None:
    """Keep a manifest's entries where they can be asked for."""
    rows: list[dict[str, Any]] = [
        {
            "artifact_id": artifact_id,
            "name": name,
            "digest": entry.digest,
            "md5": entry.md5,
            "size": entry.size,
            "birth_artifact": entry.birth_artifact_id,
            "ref": entry.ref,
        }
        for name, entry in manifest.contents.items()
    ]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        await connection.execute(artifact_files.insert(), rows[start : start + ROWS_AT_ONCE])


async def expect_blob(services: Services, key: str) -> Expected:
    """Take the bytes of a blob once: what is named after its content never changes."""
    _, entity, md5 = key.split("/")
    async with services.store.read() as connection:
        found = (await _known(connection, int(entity), {md5})).get(md5)
    if found is None:
        raise ApiError("no artifact waits for this file", status=404)
    return Expected(md5_hex=md5, settled=found[1])


async def blob_uploaded(services: Services, key: str, info: BlobInfo) -> None:
    """Note that a blob is here."""
    _, entity, md5 = key.split("/")
    async with services.store.write() as connection:
        await connection.execute(
            update(artifact_blobs)
            .where(artifact_blobs.c.entity_id == int(entity), artifact_blobs.c.md5 == md5)
            .values(present=True, size=info.size)
        )


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
        raise ApiError("this manifest is gone", status=404)
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


BLOB_UPLOADS: Final = UploadRule(expect_blob, blob_uploaded)
MANIFEST_UPLOADS: Final = UploadRule(expect_manifest, manifest_uploaded)


async def _known(
    connection: AsyncConnection, entity_id: int, digests: set[str]
) -> dict[str, tuple[int, bool]]:
    known: dict[str, tuple[int, bool]] = {}
    ordered = sorted(digests)
    for start in range(0, len(ordered), ROWS_AT_ONCE):
        rows = await connection.execute(
            select(
                artifact_blobs.c.md5, artifact_blobs.c.artifact_id, artifact_blobs.c.present
            ).where(
                artifact_blobs.c.entity_id == entity_id,
                artifact_blobs.c.md5.in_(ordered[start : start + ROWS_AT_ONCE]),
            )
        )
        known.update((md5, (birth, present)) for md5, birth, present in rows)
    return known
