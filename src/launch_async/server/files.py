"""Files of runs: rows in the database, bytes among the blobs under runs/{run}/{file}."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.blobs import BlobInfo
from launch_async.server.context import utc_now
from launch_async.server.errors import ApiError
from launch_async.server.run_rows import RunRow
from launch_async.server.services import Expected, Services, UploadRule
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.runs import run_files
from launch_async.server.store.texts import storable

KEYS = "runs"
MAX_FILE_NAME = 1024
MAX_FILES_PER_REQUEST = 10_000
GONE = "this file was deleted, or its run was"
NAMES_PER_QUERY = 500  # SQLite takes some 32 thousand parameters; others fewer


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a run; size and md5 are None until its upload is complete."""

    id: int
    run_id: int
    name: str
    size: int | None
    md5: str | None
    created_at: datetime
    uploaded_at: datetime | None

    @property
    def key(self) -> str:
        """The blob's key: made of ids, as users' names may hold anything."""
        return blob_key(self.run_id, self.id)

    @property
    def md5_base64(self) -> str | None:
        """The MD5 as the client compares it."""
        return None if self.md5 is None else base64.b64encode(bytes.fromhex(self.md5)).decode()


def blob_key(run_id: int, file_id: int) -> str:
    """Return the key under which a file's bytes are kept."""
    return f"{KEYS}/{run_id}/{file_id}"


async def ensure_files(
    connection: AsyncConnection, run: RunRow, names: Sequence[str], *, now: datetime
) -> list[RunFile]:
    """Return a file for each name, in the order of the names; missing ones are made."""
    _check_count(names)
    names = [storable(name) for name in names]  # they are compared with what was stored
    for name in names:
        if not 1 <= len(name) <= MAX_FILE_NAME:
            raise ApiError(f"a file name has 1 to {MAX_FILE_NAME} characters, not {len(name)}")
    fresh = [{"run_id": run.id, "name": name, "created_at": now} for name in dict.fromkeys(names)]
    if fresh:
        await connection.execute(insert(connection, run_files).on_conflict_do_nothing(), fresh)
    found: dict[str, RunFile] = {}
    for first in range(0, len(names), NAMES_PER_QUERY):
        chunk = names[first : first + NAMES_PER_QUERY]
        for file in await _select(connection, run.id, [run_files.c.name.in_(chunk)], len(chunk)):
            found[file.name] = file
    return [found[name] for name in names]


async def list_files(
    connection: AsyncConnection,
    run_id: int,
    *,
    names: Sequence[str] = (),
    pattern: str | None = None,
    after_id: int = 0,
    limit: int,
) -> list[RunFile]:
    """Return uploaded files by row id, of these names or, like MySQL's LIKE, of this pattern.

    A name that is asked for is returned before its upload too, so that it can be uploaded.
    """
    _check_count(names)
    wanted: list[ColumnElement[bool]] = [run_files.c.id > after_id]
    if names:
        plain = [name.removeprefix("./") for name in names]  # users write paths; W&B finds them
        wanted.append(run_files.c.name.in_([*names, *plain]))
    else:
        wanted.append(run_files.c.uploaded_at.is_not(None))
        if pattern is not None:
            if len(pattern) > MAX_FILE_NAME:
                raise ApiError(f"a pattern has at most {MAX_FILE_NAME} characters")
            if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
                pattern += "\\"  # PostgreSQL refuses an escape of nothing
            wanted.append(run_files.c.name.ilike(pattern, escape="\\"))
    return await _select(connection, run_id, wanted, limit)


async def count_files(connection: AsyncConnection, run_id: int) -> int:
    """Return how many files were uploaded."""
    count = await connection.scalar(
        select(func.count())
        .select_from(run_files)
        .where(run_files.c.run_id == run_id, run_files.c.uploaded_at.is_not(None))
    )
    return count or 0


async def find_file(connection: AsyncConnection, run_id: int, file_id: int) -> RunFile | None:
    """Return one file of a run by its row id."""
    found = await _select(connection, run_id, [run_files.c.id == file_id], 1)
    return found[0] if found else None


async def delete_file(connection: AsyncConnection, file: RunFile) -> None:
    """Forget a file; its blob is the caller's to delete."""
    await connection.execute(delete(run_files).where(run_files.c.id == file.id))


async def expect_file(services: Services, key: str) -> Expected:
    """Take any bytes for a file that is still there."""
    _, run_id, file_id = key.split("/")
    async with services.store.read() as connection:
        if await find_file(connection, int(run_id), int(file_id)) is None:
            raise ApiError(GONE, status=404)
    return Expected()


async def file_uploaded(services: Services, key: str, info: BlobInfo) -> None:
    """Note that the bytes of a run's file are there; they go with a file that was deleted."""
    _, run_id, file_id = key.split("/")
    async with services.store.write() as connection:
        noted = await connection.execute(
            update(run_files)
            .where(run_files.c.id == int(file_id), run_files.c.run_id == int(run_id))
            .values(size=info.size, md5=info.md5_hex, uploaded_at=utc_now())
        )
    if noted.rowcount == 0:
        await services.blobs.delete(key)
        raise ApiError(GONE, status=404)


UPLOADS = UploadRule(expect_file, file_uploaded)


def _check_count(names: Sequence[str]) -> None:
    if len(names) > MAX_FILES_PER_REQUEST:
        raise ApiError(f"at most {MAX_FILES_PER_REQUEST} files per request, not {len(names)}")


async def _select(
    connection: AsyncConnection, run_id: int, wanted: Sequence[ColumnElement[bool]], limit: int
) -> list[RunFile]:
    columns: list[ColumnElement[Any]] = [run_files.c[name] for name in RunFile.__struct_fields__]
    rows = await connection.execute(
        select(*columns)
        .where(run_files.c.run_id == run_id, *wanted)
        .order_by(run_files.c.id)
        .limit(limit)
    )
    return [RunFile(**row) for row in rows.mappings()]
