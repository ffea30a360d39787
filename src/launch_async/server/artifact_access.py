"""Who may change a version: members of its entity, and the run that logged it, by its own key."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.access import Role, RunScope, require_role, require_run_write
from launch_async.server.artifact_rows import ArtifactRow, require_artifact
from launch_async.server.artifacts import INPUT, OUTPUT, note_run
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.json_text import read_json
from launch_async.server.projects import ProjectRow
from launch_async.server.store.tables.artifacts import artifact_runs
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.runs import projects

AUTHOR: Final = "author"
"""Role of a run whose own key logged a version that is none of its outputs, such as its job."""


async def require_writable_artifact(
    connection: AsyncConnection, request: Request, artifact_id: str
) -> ArtifactRow:
    """Return a version by its opaque id; 404 when missing, 403 when not the viewer's to change."""
    row = await require_artifact(connection, request, artifact_id)
    scope = request.viewer.run
    if scope is None:
        require_role(request.viewer, row.collection.entity_name, Role.MEMBER)
    elif not await _noted_for(connection, row, scope, [OUTPUT, AUTHOR]):
        raise ApiError("this key changes only the artifacts that its run logged", status=403)
    return row


async def require_changeable_artifact(
    connection: AsyncConnection, request: Request, given: Mapping[str, Any]
) -> ArtifactRow:
    """Return the version that an UpdateArtifact means, as `require_writable_artifact` does.

    The client fills in what a partial job lacks at the end of the job's first run, so a run's key
    may write the metadata of such a job if its run uses it.
    """
    scope = request.viewer.run
    changes = {name for name, value in given.items() if value is not None}
    if scope is not None and changes <= {"artifact_id", "metadata", "client_mutation_id"}:
        row = await require_artifact(connection, request, given["artifact_id"])
        if _is_partial_job(row) and await _noted_for(connection, row, scope, [INPUT]):
            return row
    return await require_writable_artifact(connection, request, given["artifact_id"])


async def require_members_artifact(
    connection: AsyncConnection, request: Request, artifact_id: str
) -> ArtifactRow:
    """Return a version by its opaque id; 404 when missing, 403 for all but members."""
    row = await require_artifact(connection, request, artifact_id)
    require_role(request.viewer, row.collection.entity_name, Role.MEMBER)
    return row


def require_artifact_creation(
    request: Request, entity: str, project: str, run_name: str | None
) -> None:
    """Raise a 403 unless the viewer may log an artifact there: a run's key in its project only.

    The client logs the job that it makes of a run without the run's name.
    """
    scope = request.viewer.run
    if scope is None:
        require_role(request.viewer, entity, Role.MEMBER)
    else:
        require_run_write(request.viewer, entity, project, run_name or scope.run_name)


async def note_author(
    connection: AsyncConnection,
    request: Request,
    artifact_id: int,
    project: ProjectRow,
    *,
    now: datetime,
) -> None:
    """Remember which run's key logged a version, so that the key may finish what it began."""
    scope = request.viewer.run
    if scope is not None and scope.run_name is not None:
        await note_run(
            connection,
            artifact_id,
            project_id=project.id,
            run_name=scope.run_name,
            role=AUTHOR,
            now=now,
        )


def _is_partial_job(row: ArtifactRow) -> bool:
    try:
        metadata = read_json(row.metadata or "{}")
    except ValueError:
        return False
    partial = isinstance(metadata, dict) and metadata.get("_partial") is True
    return partial and row.collection.type_name == "job"


async def _noted_for(
    connection: AsyncConnection, row: ArtifactRow, scope: RunScope, roles: Sequence[str]
) -> bool:
    found = await connection.execute(
        select(artifact_runs.c.id)
        .join(projects, projects.c.id == artifact_runs.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(
            artifact_runs.c.artifact_id == row.id,
            artifact_runs.c.run_name == scope.run_name,
            artifact_runs.c.role.in_(roles),
            projects.c.name_folded == scope.project_folded,
            entities.c.name == scope.entity,
        )
        .limit(1)
    )
    return found.first() is not None
