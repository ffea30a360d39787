"""What is left of artifacts that nobody wants any more, swept away bit by bit.

    time to live over -> DELETED      PENDING for too long -> gone
    DELETED -> its files let go of their blobs -> loose for the time of grace -> bytes deleted

Each step is a short transaction that looks again before it takes anything, so that several servers
may sweep at once, and clients may upload meanwhile.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final

import anyio
import msgspec
import structlog
from sqlalchemy import Select, delete, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_blobs import loosen_blobs
from launch_async.server.artifact_manifests import manifest_key
from launch_async.server.artifact_parts import drop_upload
from launch_async.server.artifact_rows import (
    COMMITTED,
    DELETED,
    GONE,
    PENDING,
    ArtifactRow,
    artifact_by_number,
)
from launch_async.server.artifacts import delete_artifact, locked
from launch_async.server.blob_sweep import sweep_blobs
from launch_async.server.context import utc_now
from launch_async.server.garbage import empty_garbage, throw_away
from launch_async.server.services import Services
from launch_async.server.store import Store
from launch_async.server.store.tables.artifacts import (
    artifact_collections,
    artifact_files,
    artifact_links,
    artifact_manifests,
    artifact_pending_blobs,
    artifact_uploads,
    artifacts,
)

SWEEP_SECONDS: Final = 600.0
FILES_AT_ONCE: Final = 2000
ROWS_AT_ONCE: Final = 200

log = structlog.get_logger(__name__)


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """How much a sweep took."""

    expired: int = 0
    """Versions whose time to live was over."""
    given_up: int = 0
    """Versions that were never committed."""
    purged: int = 0
    """Deleted versions whose files were let go."""
    uploads: int = 0
    """Uploads in parts that were never completed."""
    blobs: int = 0
    """Bytes that nobody held."""


async def sweep_artifacts(services: Services) -> None:
    """Sweep now and then, until cancelled."""
    while True:
        await anyio.sleep(SWEEP_SECONDS)
        try:
            swept = await sweep_once(services, now=utc_now())
        except Exception as error:  # noqa: BLE001 - the edge of a watch: the next sweep goes on
            log.warning("a sweep of artifacts failed; the next one goes on", error=str(error))
            continue
        if swept != Swept():
            log.info("artifacts swept", **msgspec.structs.asdict(swept))


async def sweep_once(services: Services, *, now: datetime) -> Swept:
    """Take everything that may be taken at this moment."""
    store, settings = services.store, services.settings
    unfinished = now - timedelta(seconds=settings.unfinished_artifact_seconds)
    idle = now - timedelta(seconds=settings.url_lifetime_seconds)
    swept = Swept(
        expired=await _each(store, _expired(now), _expire, now),
        given_up=await _each(store, _unfinished(unfinished), _give_up, unfinished),
        purged=await _each(store, _unpurged(), _purge, now),
        uploads=await _each(store, _idle(idle), _drop, idle),
        blobs=await sweep_blobs(
            store, before=now - timedelta(seconds=settings.artifact_grace_seconds), now=now
        ),
    )
    await _forget_collections(store)
    await empty_garbage(store, services.blobs)
    return swept


async def _each(
    store: Store,
    which: Select[int],
    take: Callable[[AsyncConnection, int, datetime], Awaitable[bool]],
    when: datetime,
) -> int:
    """Take each row of a SELECT of row ids, as long as `take` says that there is more of it.

    A transaction per step; what changed since the SELECT is the step's to notice.
    """
    (column,) = which.selected_columns
    taken, last = 0, 0
    while True:
        async with store.read() as connection:
            page = which.where(column > last).order_by(column).limit(ROWS_AT_ONCE)
            numbers = list((await connection.execute(page)).scalars())
        if not numbers:
            return taken
        for number in numbers:
            more = True
            while more:
                async with store.write() as connection:
                    more = await take(connection, number, when)
        taken, last = taken + len(numbers), numbers[-1]


def _expired(now: datetime) -> Select[int]:
    """Select versions whose time is over; one that a portfolio links is kept, as W&B keeps it."""
    linked = exists().where(artifact_links.c.artifact_id == artifacts.c.id)
    return select(artifacts.c.id).where(
        artifacts.c.state == COMMITTED, artifacts.c.expires_at <= now, ~linked
    )


async def _expire(connection: AsyncConnection, number: int, now: datetime) -> bool:
    row = await _locked(connection, number, _expired(now))
    if row is not None:
        await delete_artifact(connection, row, delete_aliases=True, now=now)
    return False


def _unfinished(before: datetime) -> Select[int]:
    return select(artifacts.c.id).where(
        artifacts.c.state == PENDING,
        artifacts.c.created_at < before,
        or_(artifacts.c.updated_at.is_(None), artifacts.c.updated_at < before),
    )


async def _give_up(connection: AsyncConnection, number: int, before: datetime) -> bool:
    row = await _locked(connection, number, _unfinished(before))
    if row is not None:
        await _throw_manifests_away(connection, number)
        await connection.execute(delete(artifacts).where(artifacts.c.id == number))
    return False


def _unpurged() -> Select[int]:
    return select(artifacts.c.id).where(artifacts.c.state == DELETED, _holds_something())


async def _purge(connection: AsyncConnection, number: int, now: datetime) -> bool:
    row = await artifact_by_number(connection, number)
    if row is None:
        return False
    own = artifact_files.c.artifact_id == number
    files = (
        await connection.execute(
            select(artifact_files.c.name, artifact_files.c.md5)
            .where(own)
            .order_by(artifact_files.c.name)
            .limit(FILES_AT_ONCE)
        )
    ).all()
    if files:
        digests = {file.md5 for file in files if file.md5 is not None}
        await loosen_blobs(connection, row.collection.entity_id, digests, now=now)
        await connection.execute(
            delete(artifact_files).where(own, artifact_files.c.name <= files[-1].name)
        )
        return True
    await _throw_manifests_away(connection, number)
    for table in (artifact_manifests, artifact_pending_blobs):
        await connection.execute(delete(table).where(table.c.artifact_id == number))
    return False


def _idle(before: datetime) -> Select[int]:
    return select(artifact_uploads.c.id).where(artifact_uploads.c.touched_at < before)


async def _drop(connection: AsyncConnection, number: int, before: datetime) -> bool:
    still = _idle(before).where(artifact_uploads.c.id == number).with_for_update()
    if (await connection.execute(still)).first() is not None:
        await drop_upload(connection, number)
    return False


async def _forget_collections(store: Store) -> None:
    """Delete the rows of deleted collections whose versions hold nothing any more."""
    holding = exists().where(
        artifacts.c.collection_id == artifact_collections.c.id, _holds_something()
    )
    async with store.write() as connection:
        await connection.execute(
            delete(artifact_collections).where(artifact_collections.c.kind == GONE, ~holding)
        )


def _holds_something() -> Any:
    """Tell whether a version has anything for the sweep to take; its files come with a manifest."""
    return or_(
        exists().where(artifact_manifests.c.artifact_id == artifacts.c.id),
        exists().where(artifact_pending_blobs.c.artifact_id == artifacts.c.id),
    )


async def _locked(
    connection: AsyncConnection, number: int, which: Select[int]
) -> ArtifactRow | None:
    """Return a version, locked, if the SELECT still finds it."""
    found = await artifact_by_number(connection, number)
    if found is None:
        return None
    row = await locked(connection, found)
    still = await connection.execute(which.where(artifacts.c.id == number))
    return row if still.first() is not None else None


async def _throw_manifests_away(connection: AsyncConnection, number: int) -> None:
    rows = await connection.execute(
        select(artifact_manifests.c.id).where(artifact_manifests.c.artifact_id == number)
    )
    await throw_away(connection, [manifest_key(number, each) for each in rows.scalars()])
