"""What an entity owns, for those who are about to delete it: counted, and its blobs by key."""

from collections.abc import Sequence

import anyio
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import artifact_uploads, files
from launch_async.server.blobs import Blobs
from launch_async.server.store.tables.artifacts import (
    artifact_blobs,
    artifact_collections,
    artifact_manifests,
    artifacts,
)
from launch_async.server.store.tables.queues import run_queues
from launch_async.server.store.tables.runs import projects, run_files, runs

DELETED_AT_ONCE = 16


async def count_holdings(connection: AsyncConnection, entity_id: int) -> dict[str, int]:
    """Return how many runs, artifacts and queues an entity owns, without those of none."""
    owned = {
        "runs": select(func.count()).select_from(runs).join(projects),
        "artifacts": select(func.count()).select_from(artifact_collections).join(projects),
        "queues": select(func.count()).select_from(run_queues).join(projects),
    }
    counts = {
        name: await connection.scalar(statement.where(projects.c.entity_id == entity_id)) or 0
        for name, statement in owned.items()
    }
    return {name: count for name, count in counts.items() if count}


async def blobs_of(connection: AsyncConnection, entity_id: int) -> list[str]:
    """Return the keys of all that was uploaded into an entity."""
    of_runs: Select[int, int] = (
        select(run_files.c.run_id, run_files.c.id)
        .join(runs, runs.c.id == run_files.c.run_id)
        .join(projects, projects.c.id == runs.c.project_id)
        .where(projects.c.entity_id == entity_id)
    )
    manifests = (
        select(artifact_manifests.c.artifact_id, artifact_manifests.c.id)
        .join(artifacts, artifacts.c.id == artifact_manifests.c.artifact_id)
        .join(artifact_collections, artifact_collections.c.id == artifacts.c.collection_id)
        .join(projects, projects.c.id == artifact_collections.c.project_id)
        .where(projects.c.entity_id == entity_id)
    )
    contents = select(artifact_blobs.c.md5).where(artifact_blobs.c.entity_id == entity_id)
    return [
        *(files.blob_key(*row) for row in await connection.execute(of_runs)),
        *(artifact_uploads.manifest_key(*row) for row in await connection.execute(manifests)),
        *(
            artifact_uploads.blob_key(entity_id, md5)
            for md5 in (await connection.execute(contents)).scalars()
        ),
    ]


async def delete_blobs(blobs: Blobs, keys: Sequence[str]) -> None:
    """Delete blobs, some at a time; those that are gone already are no error."""
    limiter = anyio.CapacityLimiter(DELETED_AT_ONCE)

    async def forget(key: str) -> None:
        async with limiter:
            await blobs.delete(key)

    async with anyio.create_task_group() as tasks:
        for key in keys:
            tasks.start_soon(forget, key, name="delete blob")
