"""Mutations of artifacts: created, uploaded, committed, named, used and deleted."""

from typing import Any

from ariadne import MutationType, SchemaBindable
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import artifact_lists as lists
from launch_async.server import artifact_uploads as uploads
from launch_async.server import artifacts as rules
from launch_async.server.access import Role, require_role, require_run_write
from launch_async.server.artifact_access import (
    note_author,
    require_artifact_creation,
    require_changeable_artifact,
    require_members_artifact,
    require_writable_artifact,
)
from launch_async.server.artifact_rows import (
    ARTIFACT,
    COMMITTED,
    DELETED,
    PENDING,
    ArtifactRow,
    CollectionRow,
    find_collection,
    named_collection,
    require_artifact,
)
from launch_async.server.context import Info, Request, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number, encode_id
from launch_async.server.projects import (
    DEFAULT_PROJECT,
    check_name,
    ensure_project,
    require_project,
    resolve_entity,
)
from launch_async.server.resolvers.artifact_shapes import artifact_shape, collection_shape
from launch_async.server.store.tables.artifacts import artifact_collections

MANIFEST = "ArtifactManifest"
NAMES_SHOWN = 3

mutation = MutationType()
BINDABLES: list[SchemaBindable] = [mutation]

Json = dict[str, Any]


@mutation.field("createArtifact")
async def create_artifact(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Begin a version, or find the one that it repeats."""
    request = request_of(info)
    names = input.get("artifact_collection_names") or []
    name = input.get("artifact_collection_name") or (names[0] if names else None)
    if name is None:
        raise ApiError("an artifact needs the name of its collection")
    async with request.store.write() as connection:
        entity = await resolve_entity(connection, request, input.get("entity_name"))
        place = input.get("project_name") or DEFAULT_PROJECT
        require_artifact_creation(request, entity.name, place, input.get("run_name"))
        project = await ensure_project(connection, entity.id, place, user_id=request.viewer.user_id)
        collection = await rules.ensure_collection(
            connection,
            project,
            name=name,
            type_name=input["artifact_type_name"],
            now=request.now(),
        )
        row = await rules.create_artifact(
            connection, collection, input, user_id=request.viewer.user_id, now=request.now()
        )
        if input.get("run_name"):
            await rules.note_run(
                connection,
                row.id,
                project_id=project.id,
                run_name=input["run_name"],
                role=rules.OUTPUT,
                now=request.now(),
            )
        await note_author(connection, request, row.id, project, now=request.now())
    return {"artifact": artifact_shape(row)}


@mutation.field("createArtifactManifest")
async def create_artifact_manifest(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Say where a manifest is uploaded to. The second call of an upload knows its digest."""
    if input.get("type") not in {None, "FULL"}:
        raise ApiError("incremental artifacts are not supported; log the whole artifact")
    return await _manifest(info, input["artifact_id"], input["name"], input["digest"])


@mutation.field("updateArtifactManifest")
async def update_artifact_manifest(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Say where the next form of a manifest is uploaded to."""
    request = request_of(info)
    async with request.store.read() as connection:
        number = await lists.artifact_of_manifest(
            connection, decode_number(input["artifact_manifest_id"], MANIFEST)
        )
    if number is None:
        raise ApiError("this manifest is gone", status=404)
    artifact_id = encode_id(ARTIFACT, number)
    return await _manifest(info, artifact_id, "wandb_manifest.json", input.get("digest") or "")


@mutation.field("createArtifactFiles")
async def create_artifact_files(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Say where each file is uploaded to, in the order of the input; null when it is here."""
    request = request_of(info)
    given = input["artifact_files"]
    async with request.store.write() as connection:
        known = {
            each: await require_writable_artifact(connection, request, each)
            for each in {spec["artifact_id"] for spec in given}
        }
        entities = {row.collection.entity_id for row in known.values()}
        if len(entities) > 1:
            raise ApiError("the files of one request must belong to one entity")
        wanted = [
            uploads.WantedFile(known[spec["artifact_id"]].id, uploads.hex_of(spec["md5"]))
            for spec in given
        ]
        slots = await uploads.place_files(
            connection, next(iter(entities), 0), wanted, now=request.now()
        )
    return {
        "files": {
            "edges": [
                {
                    "node": {
                        "id": encode_id("ArtifactFile", file.artifact_id, file.md5),
                        "name": spec["name"],
                        "display_name": spec["name"],
                        "storage_path": slot.key,
                        "upload_url": None if slot.present else request.urls.upload(slot.key),
                        "upload_headers": [],
                        "upload_multipart_urls": None,
                        "artifact": {"id": encode_id(ARTIFACT, slot.birth_artifact_id)},
                    }
                }
                for spec, file, slot in zip(given, wanted, slots, strict=True)
            ]
        }
    }


@mutation.field("commitArtifact")
async def commit_artifact(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Read the manifest, check that every file came, and give the version its number."""
    request = request_of(info)
    while True:
        async with request.store.read() as connection:
            row = await require_writable_artifact(connection, request, input["artifact_id"])
            found = await uploads.uploaded_manifest(connection, row.id)
        if row.state == COMMITTED:
            return {"artifact": artifact_shape(row)}
        if row.state == DELETED or found is None:
            raise ApiError("this artifact has no manifest yet; upload it before the commit")
        manifest = await uploads.read_manifest(request.blobs, row.id, found[0])
        row = await _commit(request, row, found, manifest)
        if row.state != PENDING:
            return {"artifact": artifact_shape(row)}


@mutation.field("updateArtifact")
async def update_artifact(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Change what may change of a version."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_changeable_artifact(connection, request, input)
        row = await rules.locked(connection, row)
        row = await rules.update_artifact(connection, row, input, now=request.now())
    return {"artifact": artifact_shape(row)}


@mutation.field("deleteArtifact")
async def delete_artifact(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Delete a version."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_members_artifact(connection, request, input["artifact_id"])
        row = await rules.locked(connection, row)
        await rules.delete_artifact(
            connection, row, delete_aliases=bool(input.get("delete_aliases")), now=request.now()
        )
        row = await rules.reload(connection, row.id)
    return {"artifact": artifact_shape(row)}


@mutation.field("useArtifact")
async def use_artifact(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Note that a run uses a version."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_artifact(connection, request, input["artifact_id"])
        entity, place = input.get("entity_name"), input.get("project_name")
        require_run_write(
            request.viewer,
            entity or request.viewer.entity,
            place or DEFAULT_PROJECT,
            input["run_name"],
        )
        project = await require_project(connection, request, entity, place)
        await rules.note_run(
            connection,
            row.id,
            project_id=project.id,
            run_name=input["run_name"],
            role=rules.INPUT,
            used_as=input.get("used_as"),
            now=request.now(),
        )
    return {"artifact": artifact_shape(row)}


@mutation.field("addAliases")
async def add_aliases(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Put aliases on a version."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_writable_artifact(connection, request, input["artifact_id"])
        row = await rules.locked(connection, row)
        if row.state != COMMITTED:
            raise ApiError("only a committed version can have aliases")
        await rules.put_aliases(connection, row, _own(row.collection, input["aliases"]))
    return {"success": True}


@mutation.field("deleteAliases")
async def delete_aliases(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Take aliases off a version."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_writable_artifact(connection, request, input["artifact_id"])
        row = await rules.locked(connection, row)
        await rules.take_aliases(connection, row, _own(row.collection, input["aliases"]))
    return {"success": True}


@mutation.field("deleteArtifactSequence")
async def delete_artifact_sequence(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Delete a collection with all of its versions."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await _sequence(connection, request, input)
        await connection.execute(
            delete(artifact_collections).where(artifact_collections.c.id == row.id)
        )
    return {"artifact_collection": collection_shape(row, state=DELETED)}


@mutation.field("updateArtifactSequence")
async def update_artifact_sequence(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Change a collection's name or description."""
    request = request_of(info)
    changes: Json = {
        key: input[key] for key in ("name", "description") if input.get(key) is not None
    }
    if "name" in changes:
        check_name("artifact", changes["name"])
    async with request.store.write() as connection:
        row = await _sequence(connection, request, input)
        name = changes.get("name", row.name)
        if name != row.name and await named_collection(connection, row.project_id, name):
            raise ApiError(f"there is an artifact {name!r} already; take another name", status=409)
        await connection.execute(
            update(artifact_collections)
            .where(artifact_collections.c.id == row.id)
            .values(**changes, updated_at=request.now())
        )
        row = await _sequence(connection, request, input)
    return {"artifact_collection": collection_shape(row)}


async def _commit(
    request: Request,
    row: ArtifactRow,
    found: tuple[int, str, str],
    manifest: uploads.Manifest,
) -> ArtifactRow:
    """Commit what was read; it stays PENDING when a newer manifest came in the meantime."""
    size = sum(entry.size for entry in manifest.contents.values())
    async with request.store.write() as connection:
        row = await rules.locked(connection, row)
        if row.state != PENDING or await uploads.uploaded_manifest(connection, row.id) != found:
            return row
        missing = await uploads.missing_files(connection, row.collection.entity_id, manifest)
        if missing:
            raise ApiError(
                f"{len(missing)} files of this artifact were not uploaded, "
                f"such as {', '.join(missing[:NAMES_SHOWN])}; log it again"
            )
        await uploads.store_entries(connection, row.id, manifest)
        await rules.commit_artifact(
            connection, row, size=size, file_count=len(manifest.contents), now=request.now()
        )
        return await rules.reload(connection, row.id)


async def _manifest(info: Info, artifact_id: str, name: str, digest: str) -> Json:
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_writable_artifact(connection, request, artifact_id)
        number = await uploads.add_manifest(
            connection, row, name=name, digest=digest, now=request.now()
        )
    manifest_id = encode_id(MANIFEST, number)
    # Without its digest a manifest could be anything, and change after the commit.
    upload_url = request.urls.upload(uploads.manifest_key(row.id, number)) if digest else None
    file: Json = {"id": manifest_id, "name": name, "upload_url": upload_url, "upload_headers": []}
    return {"artifact_manifest": {"id": manifest_id, "file": file}}


async def _sequence(connection: AsyncConnection, request: Request, given: Json) -> CollectionRow:
    row = await find_collection(connection, request, given["artifact_sequence_id"])
    if row is None:
        raise ApiError("this artifact collection was not found", status=404)
    require_role(request.viewer, row.entity_name, Role.MEMBER)
    return row


def _own(collection: CollectionRow, given: list[Json]) -> list[str]:
    for each in given:
        if each["artifact_collection_name"] != collection.name:
            raise ApiError(f"this version is not in {each['artifact_collection_name']!r}")
    return [each["alias"] for each in given]
