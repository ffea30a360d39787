"""Uploads in parts: what a client sends of files of 2 GiB and more.

    opened -> PUT parts/{upload}/{number} each -> completed: joined into the blob -> parts gone

Parts are blobs like others, each with the MD5 that was announced for it. They are joined here, as
only that tells whether the whole has its MD5 too. A store with uploads in parts of its own may take
the place of this module: nothing else knows how parts become a blob.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import anyio
import msgspec
from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_blobs import BlobRow, find_blob, note_present
from launch_async.server.blobs import BlobInfo
from launch_async.server.context import Request, utc_now
from launch_async.server.errors import ApiError
from launch_async.server.garbage import empty_garbage, throw_away
from launch_async.server.services import Expected, Services, UploadRule
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import artifact_upload_parts, artifact_uploads

KEYS: Final = "parts"
MAX_PARTS: Final = 10_000
MD5_DIGITS: Final = 32
SIGN_SECONDS: Final = 10.0
"""How often somebody who joins parts says so."""
SILENT_SECONDS: Final = 120.0
"""Past this, whoever was joining them is taken to be gone."""
GIVEN_UP: Final = "this upload was given up; log the artifact again"
BEING_JOINED: Final = "the parts of this file are being put together; ask again"


class PartRow(msgspec.Struct, frozen=True):
    """A part; its size is None until it is here."""

    number: int
    md5: str
    """Hex."""
    size: int | None


def part_key(upload_id: int, number: int) -> str:
    """Return the key of a part."""
    return f"{KEYS}/{upload_id}/{number}"


def check_parts(given: Mapping[int, str]) -> list[str]:
    """Return the MD5 of each part in their order; 400 when they are not parts 1, 2, 3 and so on."""
    numbers = sorted(given)
    if not 1 <= len(numbers) <= MAX_PARTS or numbers != list(range(1, len(numbers) + 1)):
        raise ApiError(f"the parts of a file are numbered from 1 to at most {MAX_PARTS}")
    found = [given[number].lower() for number in numbers]
    for md5 in found:
        if len(md5) != MD5_DIGITS or not set(md5) <= set("0123456789abcdef"):
            raise ApiError(f"{md5!r} is not the MD5 of a part in hex")
    return found


async def open_upload(
    connection: AsyncConnection, blob: BlobRow, parts: Sequence[str], *, now: datetime
) -> int:
    """Return the row id of the upload of these parts; one that was begun before goes on."""
    text = "\n".join([blob.edition, *parts])
    upsert = insert(connection, artifact_uploads).values(
        entity_id=blob.entity_id,
        md5=blob.md5,
        parts_digest=hashlib.sha256(text.encode()).hexdigest(),
        touched_at=now,
    )
    made = await connection.execute(
        upsert.on_conflict_do_update(
            index_elements=["entity_id", "md5", "parts_digest"], set_={"touched_at": now}
        ).returning(artifact_uploads.c.id)
    )
    upload_id = int(made.scalar_one())
    await connection.execute(
        insert(connection, artifact_upload_parts).on_conflict_do_nothing(),
        [
            {"upload_id": upload_id, "number": number, "md5": md5}
            for number, md5 in enumerate(parts, 1)
        ],
    )
    return upload_id


async def complete_upload(
    request: Request, *, blob: BlobRow, upload_id: int, given: Mapping[int, str]
) -> None:
    """Join the parts of an upload into their blob. Twice does no harm.

    The client waits 30 s for an answer and then asks again: who comes while the parts are being
    joined gets a 429, which it takes as a wish to be asked later.
    """
    if blob.present:
        return
    parts = await _begin(request, blob, upload_id, check_parts(given))
    if not parts:
        return
    done = False
    try:
        await _join(request, blob, upload_id, parts)
        done = True
    finally:
        if not done:
            with anyio.CancelScope(shield=True):
                await _say(request, upload_id, None)
    await empty_garbage(request.store, request.blobs)


async def expect_part(services: Services, key: str) -> Expected:
    """Take the bytes of a part once."""
    _, upload, number = key.split("/")
    async with services.store.read() as connection:
        parts = await _parts(connection, int(upload), int(number))
    if not parts:
        raise ApiError(GIVEN_UP, status=404)
    return Expected(md5_hex=parts[0].md5, settled=parts[0].size is not None)


async def part_uploaded(services: Services, key: str, info: BlobInfo) -> None:
    """Note that a part is here; one of an upload that was given up is not kept."""
    _, upload, number = key.split("/")
    async with services.store.write() as connection:
        await connection.execute(
            update(artifact_uploads)
            .where(artifact_uploads.c.id == int(upload))
            .values(touched_at=utc_now())
        )
        noted = await connection.execute(
            update(artifact_upload_parts)
            .where(
                artifact_upload_parts.c.upload_id == int(upload),
                artifact_upload_parts.c.number == int(number),
            )
            .values(size=info.size)
        )
    if noted.rowcount == 0:
        await services.blobs.delete(key)
        raise ApiError(GIVEN_UP, status=404)


UPLOADS: Final = UploadRule(expect_part, part_uploaded)


async def drop_upload(connection: AsyncConnection, upload_id: int) -> None:
    """Forget an upload; the bytes of its parts go with the garbage, those under way too."""
    parts = await _parts(connection, upload_id)
    await throw_away(connection, [part_key(upload_id, part.number) for part in parts])
    await connection.execute(delete(artifact_uploads).where(artifact_uploads.c.id == upload_id))


async def _begin(
    request: Request, blob: BlobRow, upload_id: int, digests: Sequence[str]
) -> list[PartRow]:
    """Return the parts, which are ours to join from here on; none when they were joined already."""
    now = request.now()
    silent = now - timedelta(seconds=SILENT_SECONDS)
    its = (
        artifact_uploads.c.id == upload_id,
        artifact_uploads.c.entity_id == blob.entity_id,
        artifact_uploads.c.md5 == blob.md5,
    )
    async with request.store.write() as connection:
        known = await connection.execute(
            select(artifact_uploads.c.joining_since).where(*its).with_for_update()
        )
        if known.first() is None:
            found = await find_blob(connection, blob.key)
            if found is not None and found.present:  # somebody else was faster
                return []
            raise ApiError(GIVEN_UP, status=404)
        parts = await _parts(connection, upload_id)
        if [part.md5 for part in parts] != list(digests):
            raise ApiError("these are not the parts that the upload was opened for")
        missing = [str(part.number) for part in parts if part.size is None]
        if missing:
            raise ApiError(f"part {missing[0]} of this file was not uploaded; log it again")
        mine = await connection.execute(
            update(artifact_uploads)
            .where(
                *its,
                or_(
                    artifact_uploads.c.joining_since.is_(None),
                    artifact_uploads.c.joining_since < silent,
                ),
            )
            .values(joining_since=now, touched_at=now)
        )
        if mine.rowcount == 0:
            raise ApiError(BEING_JOINED, status=429)
    return parts


async def _join(request: Request, blob: BlobRow, upload_id: int, parts: Sequence[PartRow]) -> None:
    async def whole() -> AsyncIterator[bytes]:
        said = time.monotonic()
        for part in parts:
            async for chunk in await request.blobs.get(part_key(upload_id, part.number)):
                yield chunk
                if time.monotonic() - said > SIGN_SECONDS:
                    said = time.monotonic()
                    await _say(request, upload_id, request.now())

    try:
        info = await request.blobs.put(blob.key, whole(), md5_hex=blob.md5)
    except ApiError:  # each part is as announced, so the same parts will never make it up
        async with request.store.write() as connection:
            await drop_upload(connection, upload_id)
        raise
    async with request.store.write() as connection:
        kept = await note_present(connection, blob.key, info)
        await drop_upload(connection, upload_id)
    if not kept:
        await request.blobs.delete(blob.key)
        raise ApiError(GIVEN_UP, status=404)


async def _say(request: Request, upload_id: int, joining_since: datetime | None) -> None:
    """Say that somebody is joining the parts, or nobody any more."""
    async with request.store.write() as connection:
        await connection.execute(
            update(artifact_uploads)
            .where(artifact_uploads.c.id == upload_id)
            .values(joining_since=joining_since)
        )


async def _parts(
    connection: AsyncConnection, upload_id: int, number: int | None = None
) -> list[PartRow]:
    statement = select(
        artifact_upload_parts.c.number, artifact_upload_parts.c.md5, artifact_upload_parts.c.size
    ).where(artifact_upload_parts.c.upload_id == upload_id)
    if number is not None:
        statement = statement.where(artifact_upload_parts.c.number == number)
    rows = await connection.execute(statement.order_by(artifact_upload_parts.c.number))
    return [PartRow(*row) for row in rows]
