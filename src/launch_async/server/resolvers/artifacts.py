"""Artifacts as clients read them."""

from typing import Any

from ariadne import ObjectType, QueryType, SchemaBindable, UnionType

from launch_async.server import artifact_lists as lists
from launch_async.server import artifact_rows as rows
from launch_async.server.artifact_manifests import uploaded_manifests
from launch_async.server.artifact_members import memberships_of, named_member
from launch_async.server.artifact_rows import ARTIFACT, COMMITTED, ArtifactRow
from launch_async.server.artifacts import INPUT, OUTPUT
from launch_async.server.context import Info, request_of
from launch_async.server.ids import encode_id
from launch_async.server.projects import ProjectRow
from launch_async.server.resolvers.artifact_shapes import (
    artifact_shape,
    artifacts_shape,
    file_shape,
    membership_shape,
    page_shape,
)
from launch_async.server.resolvers.projects import connection_of, page_size, page_start
from launch_async.server.resolvers.viewer import load_user
from launch_async.server.run_rows import RunRow, UserRow

query = QueryType()
project_type = ObjectType("Project")
run_type = ObjectType("Run")
artifact = ObjectType("Artifact")
membership = ObjectType("ArtifactCollectionMembership")
creator = UnionType("ArtifactCreator")

BINDABLES: list[SchemaBindable] = [
    query,
    project_type,
    run_type,
    artifact,
    membership,
    creator,
]

Json = dict[str, Any]


@creator.type_resolver
def creator_type_name(value: RunRow | UserRow, *_: Any) -> str:
    """Tell runs from users."""
    return "Run" if isinstance(value, RunRow) else "User"


@query.field("artifact")
async def resolve_artifact(_: None, info: Info, id: str) -> Json | None:  # noqa: A002
    """Return a version by its id, also a deleted one."""
    request = request_of(info)
    async with request.store.read() as connection:
        row = await rows.find_artifact(connection, request, id)
    return None if row is None else artifact_shape(row)


@query.field("clientIDMapping")
async def resolve_client_id(_: None, info: Info, client_id: str) -> Json | None:
    """Return the id of the version that a client made under its own id."""
    request = request_of(info)
    async with request.store.read() as connection:
        row = await lists.artifact_of_client_id(
            connection, client_id, entity_names=request.viewer.entities
        )
    if row is None:
        return None
    return {"server_id": encode_id(ARTIFACT, row.id)}


@project_type.field("artifact")
async def resolve_named_artifact(row: ProjectRow, info: Info, name: str, **_: Any) -> Json | None:
    """Return a version by name."""
    async with request_of(info).store.read() as connection:
        found = await named_member(connection, row.id, name)
    return None if found is None else artifact_shape(found.artifact)


@project_type.field("artifactCollectionMembership")
async def resolve_named_membership(row: ProjectRow, info: Info, name: str) -> Json | None:
    """Return a version by name, as a member of its collection."""
    async with request_of(info).store.read() as connection:
        found = await named_member(connection, row.id, name)
    return None if found is None else membership_shape(found)


@artifact.field("currentManifest")
async def resolve_manifest(parent: Json, info: Info) -> Json | None:
    """Return where the manifest can be read."""
    request = request_of(info)
    row: ArtifactRow = parent["row"]
    async with request.store.read() as connection:
        found = await uploaded_manifests(connection, row.id)
    if not found:
        return None
    newest = found[-1]
    url = request.urls.download(newest.key, filename=newest.name)
    manifest_id = encode_id("ArtifactManifest", newest.id)
    file = {"id": manifest_id, "name": newest.name, "url": url, "direct_url": url}
    return {"id": manifest_id, "file": file}


@artifact.field("files")
@membership.field("files")
async def resolve_files(
    parent: Json,
    info: Info,
    names: list[str] | None = None,
    after: str | None = None,
    first: int | None = None,
) -> Json:
    """Return the stored files of a version."""
    return await _files(info, parent["row"], names, after, first)


@artifact.field("filesByManifestEntries")
async def resolve_files_by_entries(
    parent: Json, info: Info, entries: list[Json] | None = None, **_: Any
) -> Json:
    """Return those files of a version that a client names."""
    names = [entry["name"] for entry in entries or []]
    request, row = request_of(info), parent["row"]
    async with request.store.read() as connection:  # the field takes no cursor: all on one page
        page = await lists.files_page(connection, row, names=names, start=0, size=len(names))
    return page_shape(page, [file_shape(request, row, each) for each in page.rows])


@artifact.field("artifactMemberships")
async def resolve_memberships(parent: Json, info: Info) -> Json:
    """Return the collections that a version is in: its own sequence and portfolios."""
    row: ArtifactRow = parent["row"]
    if row.state != COMMITTED:
        return {"edges": []}
    async with request_of(info).store.read() as connection:
        found = await memberships_of(connection, row)
    return {"edges": [{"node": membership_shape(each)} for each in found]}


@artifact.field("createdBy")
async def resolve_created_by(parent: Json, info: Info) -> RunRow | UserRow | None:
    """Return the run that made a version; when it is gone, the user."""
    request = request_of(info)
    row: ArtifactRow = parent["row"]
    async with request.store.read() as connection:
        makers = await lists.runs_of(
            connection, row.id, role=OUTPUT, entity_names=request.viewer.entities, limit=1
        )
    if makers:
        return makers[0]
    return None if row.created_by is None else await load_user(request, row.created_by)


@artifact.field("usedBy")
async def resolve_used_by(parent: Json, info: Info) -> Json:
    """Return the runs that used a version, as far as the viewer may see them."""
    request = request_of(info)
    async with request.store.read() as connection:
        found = await lists.runs_of(
            connection, parent["row"].id, role=INPUT, entity_names=request.viewer.entities
        )
    return connection_of(found, [str(run.id) for run in found], has_next=False)


@run_type.field("inputArtifacts")
async def resolve_inputs(
    run: RunRow, info: Info, after: str | None = None, first: int | None = None
) -> Json:
    """Return what a run used."""
    return await _of_run(info, run, INPUT, after, first)


@run_type.field("outputArtifacts")
async def resolve_outputs(
    run: RunRow, info: Info, after: str | None = None, first: int | None = None
) -> Json:
    """Return what a run made."""
    return await _of_run(info, run, OUTPUT, after, first)


async def _files(
    info: Info, row: ArtifactRow, names: list[str] | None, after: str | None, first: int | None
) -> Json:
    request = request_of(info)
    async with request.store.read() as connection:
        page = await lists.files_page(
            connection, row, names=names, start=page_start(after), size=page_size(first)
        )
    return page_shape(page, [file_shape(request, row, each) for each in page.rows])


async def _of_run(info: Info, run: RunRow, role: str, after: str | None, first: int | None) -> Json:
    request = request_of(info)
    async with request.store.read() as connection:
        page = await lists.run_page(
            connection,
            run,
            role=role,
            entity_names=request.viewer.entities,
            start=page_start(after),
            size=page_size(first),
        )
    return artifacts_shape(page)
