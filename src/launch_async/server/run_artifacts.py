"""What happens to a run's artifacts when the run is deleted with them."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.access import Role
from launch_async.server.artifact_rows import DELETED
from launch_async.server.artifacts import OUTPUT, delete_artifact, locked, reload
from launch_async.server.context import Request
from launch_async.server.run_rows import RunRow
from launch_async.server.store.tables.artifacts import artifact_runs, artifacts


async def delete_outputs(
    connection: AsyncConnection, request: Request, run: RunRow, *, now: datetime
) -> None:
    """Delete every version that a run logged, whatever its aliases.

    One of an entity where the viewer may not write stays, as does what the run only used.
    """
    rows = await connection.execute(
        select(artifacts.c.id)
        .join(artifact_runs, artifact_runs.c.artifact_id == artifacts.c.id)
        .where(
            artifact_runs.c.project_id == run.project.id,
            artifact_runs.c.run_name == run.name,
            artifact_runs.c.role == OUTPUT,
            artifacts.c.state != DELETED,
        )
        .order_by(artifacts.c.collection_id, artifacts.c.id)  # so that all lock in one order
    )
    for number in list(rows.scalars()):
        version = await reload(connection, number)
        if not request.viewer.may(version.collection.entity_name, Role.MEMBER):
            continue
        version = await locked(connection, version)
        if version.state != DELETED:
            await delete_artifact(connection, version, delete_aliases=True, now=now)
