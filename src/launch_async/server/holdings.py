"""What an entity owns, for those who are about to delete it: counted, and its blobs by key."""

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import files
from launch_async.server.artifact_blobs import blob_key
from launch_async.server.artifact_manifests import manifest_key
from launch_async.server.artifact_parts import part_key
from launch_async.server.artifact_rows import GONE
from launch_async.server.store.tables.artifacts import (
    artifact_blobs,
    artifact_collections,
    artifact_manifests,
    artifact_upload_parts,
    artifact_uploads,
    artifacts,
)
from launch_async.server.store.tables.queues import run_queues
from launch_async.server.store.tables.runs import projects, run_files, runs


async def count_holdings(connection: AsyncConnection, entity_id: int) -> dict[str, int]:
    """Return how many runs, artifacts and queues an entity owns, without those of none."""
    owned = {
        "runs": select(func.count()).select_from(runs).join(projects),
        "artifacts": select(func.count())
        .select_from(artifact_collections)
        .join(projects)
        .where(artifact_collections.c.kind != GONE),
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
    contents = select(
        artifact_blobs.c.entity_id, artifact_blobs.c.md5, artifact_blobs.c.edition
    ).where(artifact_blobs.c.entity_id == entity_id)
    parts = (
        select(artifact_upload_parts.c.upload_id, artifact_upload_parts.c.number)
        .join(artifact_uploads)
        .where(artifact_uploads.c.entity_id == entity_id)
    )
    return [
        *(files.blob_key(*row) for row in await connection.execute(of_runs)),
        *(manifest_key(*row) for row in await connection.execute(manifests)),
        *(blob_key(*row) for row in await connection.execute(contents)),
        *(part_key(*row) for row in await connection.execute(parts)),
    ]
