"""Bytes of artifacts: one blob per entity and MD5, however many versions hold it.

    wanted -> PUT artifacts/{entity}/{md5}-{edition} -> present -> held -> loose -> swept

Who wants or holds a blob touches its row, and the sweep deletes only rows that nobody touched since
it looked. A content that comes again afterwards gets another edition, and with it another key: the
sweep of the old bytes never meets the new ones.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_rows import PENDING
from launch_async.server.blobs import BlobInfo
from launch_async.server.errors import ApiError
from launch_async.server.services import Expected, Services, UploadRule
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import (
    artifact_blobs,
    artifact_collections,
    artifact_pending_blobs,
    artifacts,
)
from launch_async.server.store.tables.runs import projects

KEYS: Final = "artifacts"
KEY: Final = re.compile(rf"{KEYS}/[0-9]{{1,9}}/[0-9a-f]{{32}}(-[0-9a-f]+)?", re.ASCII)
MD5_BYTES: Final = 16
EDITION_BYTES: Final = 4
ROWS_AT_ONCE: Final = 500
NOT_AWAITED: Final = "no artifact waits for this file any more; log the artifact again"


class BlobRow(msgspec.Struct, frozen=True):
    """A content that an entity has, or waits for."""

    entity_id: int
    md5: str
    """Hex."""
    edition: str
    birth_artifact_id: int
    """The artifact that wanted it first; it may be gone by now."""
    present: bool
    size: int | None

    @property
    def key(self) -> str:
        """Where its bytes are."""
        return blob_key(self.entity_id, self.md5, self.edition)


COLUMNS = (
    artifact_blobs.c.entity_id,
    artifact_blobs.c.md5,
    artifact_blobs.c.edition,
    artifact_blobs.c.artifact_id,
    artifact_blobs.c.present,
    artifact_blobs.c.size,
)


def blob_key(entity_id: int, md5: str, edition: str) -> str:
    """Return the key of a blob."""
    return f"{KEYS}/{entity_id}/{md5}-{edition}" if edition else f"{KEYS}/{entity_id}/{md5}"


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


async def want_blobs(
    connection: AsyncConnection,
    entity_id: int,
    artifact_id: int,
    digests: Sequence[str],
    *,
    now: datetime,
) -> list[BlobRow]:
    """Return the blob of each MD5, in the same order, made when missing.

    None of them is swept before the artifact is committed or given up.
    """
    ordered = sorted(set(digests))  # in one order: two requests may overlap
    upsert = insert(connection, artifact_blobs)
    upsert = upsert.on_conflict_do_update(
        index_elements=["entity_id", "md5"], set_={"loose_since": upsert.excluded.loose_since}
    )
    rows = await connection.execute(
        upsert.returning(*COLUMNS),
        [
            {
                "entity_id": entity_id,
                "md5": md5,
                "present": False,
                "artifact_id": artifact_id,
                "edition": secrets.token_hex(EDITION_BYTES),
                "created_at": now,
                "loose_since": now,
            }
            for md5 in ordered
        ],
    )
    found = {row.md5: BlobRow(*row) for row in rows}
    await connection.execute(
        insert(connection, artifact_pending_blobs).on_conflict_do_nothing(),
        [{"artifact_id": artifact_id, "md5": md5} for md5 in ordered],
    )
    return [found[md5] for md5 in digests]


async def hold_blobs(
    connection: AsyncConnection, entity_id: int, digests: Collection[str]
) -> dict[str, int]:
    """Keep the blobs that are present from the sweep; return their sizes by MD5.

    The caller has the transaction also note which version holds them.
    """
    sizes: dict[str, int] = {}
    for some in _slices(digests):
        which = artifact_blobs.c.entity_id == entity_id, artifact_blobs.c.md5.in_(some)
        rows = await connection.execute(
            select(artifact_blobs.c.md5, artifact_blobs.c.size)
            .where(*which, artifact_blobs.c.present)
            .order_by(artifact_blobs.c.md5)
            .with_for_update()
        )
        sizes.update((md5, size or 0) for md5, size in rows)
        await connection.execute(update(artifact_blobs).where(*which).values(loose_since=None))
    return sizes


async def loosen_blobs(
    connection: AsyncConnection, entity_id: int, digests: Collection[str], *, now: datetime
) -> None:
    """Let the sweep look at blobs that a version has let go of, after the time of grace."""
    for some in _slices(digests):
        which = artifact_blobs.c.entity_id == entity_id, artifact_blobs.c.md5.in_(some)
        await connection.execute(
            select(artifact_blobs.c.md5)
            .where(*which)
            .order_by(artifact_blobs.c.md5)
            .with_for_update()
        )
        await connection.execute(update(artifact_blobs).where(*which).values(loose_since=now))


async def find_blob(connection: AsyncConnection, key: str) -> BlobRow | None:
    """Return the blob of a key, None when it is not that edition any more, or no key."""
    if KEY.fullmatch(key) is None:
        return None
    entity_id, md5, edition = parts_of(key)
    rows = await connection.execute(
        select(*COLUMNS).where(
            artifact_blobs.c.entity_id == entity_id,
            artifact_blobs.c.md5 == md5,
            artifact_blobs.c.edition == edition,
        )
    )
    row = rows.one_or_none()
    return None if row is None else BlobRow(*row)


async def artifacts_awaiting(connection: AsyncConnection, blob: BlobRow) -> list[int]:
    """Return the row ids of the PENDING versions that wait for a blob."""
    rows = await connection.execute(
        select(artifacts.c.id)
        .join(artifact_pending_blobs, artifact_pending_blobs.c.artifact_id == artifacts.c.id)
        .join(artifact_collections, artifact_collections.c.id == artifacts.c.collection_id)
        .join(projects, projects.c.id == artifact_collections.c.project_id)
        .where(
            artifact_pending_blobs.c.md5 == blob.md5,
            artifacts.c.state == PENDING,
            projects.c.entity_id == blob.entity_id,
        )
        .order_by(artifacts.c.id)
    )
    return list(rows.scalars())


def parts_of(key: str) -> tuple[int, str, str]:
    """Return (row id of the entity, MD5, edition) of a key."""
    _, entity, name = key.split("/")
    md5, _, edition = name.partition("-")
    return int(entity), md5, edition


async def expect_blob(services: Services, key: str) -> Expected:
    """Take the bytes of a blob once: what is named after its content never changes."""
    async with services.store.read() as connection:
        found = await find_blob(connection, key)
    if found is None:
        raise ApiError(NOT_AWAITED, status=404)
    return Expected(md5_hex=found.md5, settled=found.present)


async def blob_uploaded(services: Services, key: str, info: BlobInfo) -> None:
    """Note that a blob is here; bytes that nobody waits for any more are not kept."""
    async with services.store.write() as connection:
        kept = await note_present(connection, key, info)
    if not kept:
        await services.blobs.delete(key)
        raise ApiError(NOT_AWAITED, status=404)


async def note_present(connection: AsyncConnection, key: str, info: BlobInfo) -> bool:
    """Note that a blob is here; False when nobody waits for it any more."""
    entity_id, md5, edition = parts_of(key)
    noted = await connection.execute(
        update(artifact_blobs)
        .where(
            artifact_blobs.c.entity_id == entity_id,
            artifact_blobs.c.md5 == md5,
            artifact_blobs.c.edition == edition,
        )
        .values(present=True, size=info.size)
    )
    return noted.rowcount > 0


UPLOADS: Final = UploadRule(expect_blob, blob_uploaded)


def _slices(digests: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(digests)  # in one order: two transactions may overlap
    for start in range(0, len(ordered), ROWS_AT_ONCE):
        yield ordered[start : start + ROWS_AT_ONCE]
