"""Artifacts as clients read them."""

from typing import Any

from ariadne import InterfaceType, ObjectType, QueryType, SchemaBindable, UnionType

from launch_async.server import artifact_lists as lists
from launch_async.server import artifact_rows as rows
from launch_async.server.artifact_rows import ARTIFACT, ArtifactRow, CollectionRow, TypeRow
from launch_async.server.artifact_uploads import manifest_key, uploaded_manifest
from launch_async.server.artifacts import INPUT, OUTPUT
from launch_async.server.context import Info, request_of
from launch_async.server.ids import encode_id
from launch_async.server.projects import ProjectRow, get_project_by_id
from launch_async.server.resolvers.artifact_shapes import (
    alias_shape,
    artifact_shape,
    collection_shape,
    file_shape,
    membership_shape,
    page_shape,
    type_shape,
    versions_shape,
)
from launch_async.server.resolvers.projects import connection_of, page_size, page_start
from launch_async.server.resolvers.viewer import load_user
from launch_async.server.run_rows import RunRow, UserRow, load_run

query = QueryType()
project_type = ObjectType("Project")
run_type = ObjectType("Run")
artifact = ObjectType("Artifact")
kind = ObjectType("ArtifactType")
collection = ObjectType("ArtifactSequence")
collection_interface = InterfaceType("ArtifactCollection")
membership = ObjectType("ArtifactCollectionMembership")
creator = UnionType("ArtifactCreator")

BINDABLES: list[SchemaBindable] = [
    query,
    project_type,
    run_type,
    artifact,
    kind,
    collection,
    collection_interface,
    membership,
    creator,
]

Json = dict[str, Any]


@collection_interface.type_resolver
def collection_type_name(*_: Any) -> str:
    """Every collection is a sequence: portfolios belong to registries, which are not served."""
    return "ArtifactSequence"


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


@query.field("artifactCollection")
async def resolve_collection(_: None, info: Info, id: str) -> Json | None:  # noqa: A002
    """Return a collection by its id."""
    request = request_of(info)
    async with request.store.read() as connection:
        row = await rows.find_collection(connection, request, id)
    return None if row is None else collection_shape(row)


@query.field("clientIDMapping")
async def resolve_client_id(_: None, info: Info, client_id: str) -> Json | None:
    """Return the id of the version that a client made under its own id."""
    request = request_of(info)
    async with request.store.read() as connection:
        row = await lists.artifact_of_client_id(connection, client_id)
    if row is None or row.collection.entity_name not in request.viewer.entities:
        return None
    return {"server_id": encode_id(ARTIFACT, row.id)}


@project_type.field("artifact")
async def resolve_named_artifact(row: ProjectRow, info: Info, name: str) -> Json | None:
    """Return a version by name."""
    async with request_of(info).store.read() as connection:
        found = await rows.named_artifact(connection, row.id, name)
    return None if found is None else artifact_shape(found)


@project_type.field("artifactCollectionMembership")
async def resolve_named_membership(row: ProjectRow, info: Info, name: str) -> Json | None:
    """Return a version by name, as a member of its collection."""
    async with request_of(info).store.read() as connection:
        found = await rows.named_artifact(connection, row.id, name)
    return None if found is None else membership_shape(found)


@project_type.field("artifactTypes")
async def resolve_types(
    row: ProjectRow, info: Info, after: str | None = None, first: int | None = None
) -> Json:
    """Return a project's artifact types."""
    start, size = page_start(after), page_size(first)
    async with request_of(info).store.read() as connection:
        found = await lists.types_of(connection, row.id)
    page = lists.Page(list(found[start : start + size]), start, len(found))
    return page_shape(page, [type_shape(each) for each in page.rows])


@project_type.field("artifactType")
async def resolve_type(row: ProjectRow, info: Info, name: str) -> Json | None:
    """Return a project's artifact type by name."""
    async with request_of(info).store.read() as connection:
        found = await lists.types_of(connection, row.id)
    return next((type_shape(each) for each in found if each.name == name), None)


@project_type.field("artifactCollection")
async def resolve_project_collection(row: ProjectRow, info: Info, name: str) -> Json | None:
    """Return a project's collection by name."""
    async with request_of(info).store.read() as connection:
        found = await rows.named_collection(connection, row.id, name)
    return None if found is None else collection_shape(found)


@project_type.field("artifactCollections")
async def resolve_project_collections(
    row: ProjectRow, info: Info, after: str | None = None, first: int | None = None, **_: Any
) -> Json:
    """Return a project's collections."""
    return await _collections(info, row.id, None, after, first)


@kind.field("artifactCollections")
async def resolve_type_collections(
    parent: Json, info: Info, after: str | None = None, first: int | None = None, **_: Any
) -> Json:
    """Return the collections of a type."""
    row: TypeRow = parent["row"]
    return await _collections(info, row.project_id, row.id, after, first)


@kind.field("artifactCollection")
async def resolve_type_collection(parent: Json, info: Info, name: str) -> Json | None:
    """Return a collection of a type by name."""
    row: TypeRow = parent["row"]
    async with request_of(info).store.read() as connection:
        found = await rows.named_collection(connection, row.project_id, name)
    return None if found is None or found.type_id != row.id else collection_shape(found)


@collection.field("project")
async def resolve_collection_project(parent: Json, info: Info) -> ProjectRow | None:
    """Return the project of a collection."""
    async with request_of(info).store.read() as connection:
        return await get_project_by_id(connection, parent["row"].project_id)


@collection.field("latestArtifact")
async def resolve_latest(parent: Json, info: Info) -> Json | None:
    """Return the newest committed version."""
    async with request_of(info).store.read() as connection:
        row = await rows.newest_artifact(connection, parent["row"].id)
    return None if row is None else artifact_shape(row)


@collection.field("digestAlgorithm")
async def resolve_digest_algorithm(parent: Json, info: Info) -> str | None:
    """Return what the newest version was digested with."""
    newest = await resolve_latest(parent, info)
    return None if newest is None else str(newest["digest_algorithm"])


@collection.field("tags")
async def resolve_collection_tags(parent: Json, info: Info) -> Json:
    """Return the tags of a collection."""
    async with request_of(info).store.read() as connection:
        tags = await lists.tags_of(connection, parent["row"].id)
    return {"edges": [{"node": {"id": encode_id("Tag", n), "name": name}} for n, name in tags]}


@collection.field("aliases")
async def resolve_collection_aliases(
    parent: Json, info: Info, after: str | None = None, first: int | None = None
) -> Json:
    """Return the aliases of all versions of a collection."""
    row: CollectionRow = parent["row"]
    start, size = page_start(after), page_size(first)
    async with request_of(info).store.read() as connection:
        found = await lists.aliases_of(connection, row.id)
    page = lists.Page(list(found[start : start + size]), start, len(found))
    return page_shape(page, [alias_shape(number, name, row) for number, name in page.rows])


@collection.field("artifacts")
async def resolve_versions(
    parent: Json,
    info: Info,
    after: str | None = None,
    first: int | None = None,
    order: str | None = None,
    **_: Any,
) -> Json:
    """Return the committed versions of a collection, the newest first unless asked otherwise."""
    async with request_of(info).store.read() as connection:
        page = await lists.versions_page(
            connection,
            parent["row"].id,
            oldest_first=order is not None and not order.startswith("-"),
            start=page_start(after),
            size=page_size(first),
        )
    return versions_shape(page)


@collection.field("artifactMembership")
async def resolve_membership(parent: Json, info: Info, alias_name: str) -> Json | None:
    """Return a version of a collection by alias, vN or digest."""
    async with request_of(info).store.read() as connection:
        found = await rows.member(connection, parent["row"].id, alias_name)
    return None if found is None else membership_shape(found)


@artifact.field("currentManifest")
async def resolve_manifest(parent: Json, info: Info) -> Json | None:
    """Return where the manifest can be read."""
    request = request_of(info)
    row: ArtifactRow = parent["row"]
    async with request.store.read() as connection:
        found = await uploaded_manifest(connection, row.id)
    if found is None:
        return None
    number, _, name = found
    url = request.urls.download(manifest_key(row.id, number), filename=name)
    manifest_id = encode_id("ArtifactManifest", number)
    file = {"id": manifest_id, "name": name, "url": url, "direct_url": url}
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
    return await _files(info, parent["row"], names, None, len(names))


@artifact.field("artifactMemberships")
def resolve_memberships(parent: Json, _: Info) -> Json:
    """Return the one collection that a version is in."""
    return {"edges": [{"node": membership_shape(parent["row"])}]}


@artifact.field("createdBy")
async def resolve_created_by(parent: Json, info: Info) -> RunRow | UserRow | None:
    """Return the run that made a version; when it is gone, the user."""
    request = request_of(info)
    row: ArtifactRow = parent["row"]
    async with request.store.read() as connection:
        maker = await lists.maker_of(connection, row.id)
        project = None if maker is None else await get_project_by_id(connection, maker[0])
        if maker is not None and project is not None:
            run = await load_run(connection, project, maker[1])
            if run is not None:
                return run
    return None if row.created_by is None else await load_user(request, row.created_by)


@artifact.field("usedBy")
async def resolve_used_by(parent: Json, info: Info) -> Json:
    """Return the runs that used a version, as far as the viewer may see them."""
    request = request_of(info)
    found: list[RunRow] = []
    async with request.store.read() as connection:
        for project_id, name in await lists.runs_of(connection, parent["row"].id, role=INPUT):
            project = await get_project_by_id(connection, project_id)
            if project is None or project.entity_name not in request.viewer.entities:
                continue
            run = await load_run(connection, project, name)
            if run is not None:
                found.append(run)
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
            connection, row.id, names=names, start=page_start(after), size=page_size(first)
        )
    return page_shape(page, [file_shape(request, row, each) for each in page.rows])


async def _of_run(info: Info, run: RunRow, role: str, after: str | None, first: int | None) -> Json:
    async with request_of(info).store.read() as connection:
        page = await lists.run_page(
            connection, run, role=role, start=page_start(after), size=page_size(first)
        )
    return versions_shape(page)


async def _collections(
    info: Info, project_id: int, type_id: int | None, after: str | None, first: int | None
) -> Json:
    async with request_of(info).store.read() as connection:
        page = await lists.collections_page(
            connection, project_id, type_id=type_id, start=page_start(after), size=page_size(first)
        )
    return page_shape(page, [collection_shape(row) for row in page.rows])
