"""Mutations by which a version is uploaded: created, placed file by file, described, committed."""

from typing import Any

from ariadne import MutationType, SchemaBindable
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import artifact_manifests as manifests
from launch_async.server import artifacts as rules
from launch_async.server.artifact_access import (
    note_author,
    require_artifact_creation,
    require_writable_artifact,
)
from launch_async.server.artifact_blobs import (
    NOT_AWAITED,
    BlobRow,
    artifacts_awaiting,
    base64_of,
    find_blob,
    hex_of,
    want_blobs,
)
from launch_async.server.artifact_collections import ensure_collection
from launch_async.server.artifact_commits import commit_artifact
from launch_async.server.artifact_parts import check_parts, complete_upload, open_upload, part_key
from launch_async.server.artifact_rows import ARTIFACT, DELETED, ArtifactRow, require_artifact
from launch_async.server.context import Info, Request, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number, encode_id
from launch_async.server.projects import DEFAULT_PROJECT, ensure_project, resolve_entity
from launch_async.server.resolvers.artifact_shapes import artifact_shape

MANIFEST = "ArtifactManifest"
UPLOAD = "ArtifactUpload"

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
        collection = await ensure_collection(
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
    """Say where a manifest is uploaded to. A FULL one comes twice; then its digest is known."""
    request = request_of(info)
    kind = input.get("type") or manifests.FULL
    async with request.store.write() as connection:
        row = await require_writable_artifact(connection, request, input["artifact_id"])
        base = None
        if kind == manifests.INCREMENTAL and input.get("base_artifact_id"):
            base = await require_artifact(connection, request, input["base_artifact_id"])
        made = await manifests.add_manifest(
            connection,
            row,
            name=input["name"],
            digest=input["digest"],
            kind=kind,
            base_artifact_id=None if base is None else base.id,
            now=request.now(),
        )
    return _manifest_shape(request, made)


@mutation.field("updateArtifactManifest")
async def update_artifact_manifest(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Say where a manifest is uploaded to whose digest is known by now."""
    request = request_of(info)
    number = decode_number(input["artifact_manifest_id"], MANIFEST)
    async with request.store.write() as connection:
        known = await manifests.find_manifest(connection, number)
        if known is None:
            raise ApiError(manifests.GONE, status=404)
        artifact_id = encode_id(ARTIFACT, known.artifact_id)
        row = await require_writable_artifact(connection, request, artifact_id)
        made = await manifests.change_manifest(
            connection, row, known, input.get("digest") or "", now=request.now()
        )
    return _manifest_shape(request, made)


@mutation.field("createArtifactFiles")
async def create_artifact_files(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Say where each file is uploaded to, in the order of the input; null when it is here."""
    request = request_of(info)
    given: list[Json] = input["artifact_files"]
    nodes: dict[int, Json] = {}
    async with request.store.write() as connection:
        for artifact_id in dict.fromkeys(spec["artifact_id"] for spec in given):
            row = await require_writable_artifact(connection, request, artifact_id)
            if row.state == DELETED:
                raise ApiError("this artifact was deleted; log it again", status=409)
            own = {n: spec for n, spec in enumerate(given) if spec["artifact_id"] == artifact_id}
            placed = await _place(connection, request, row, list(own.values()))
            nodes.update(zip(own, placed, strict=True))
            await rules.touch(connection, row, now=request.now())
    return {"files": {"edges": [{"node": nodes[number]} for number in range(len(given))]}}


@mutation.field("completeMultipartUploadArtifact")
async def complete_multipart_upload(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Join the parts of a file. The client hands back the ETag of each part."""
    request = request_of(info)
    upload_id = decode_number(input["upload_id"], UPLOAD)
    given = {part["part_number"]: part["hex_md5"].strip('"') for part in input["completed_parts"]}
    async with request.store.read() as connection:
        blob = await _awaited_blob(connection, request, input["storage_path"])
    await complete_upload(request, blob=blob, upload_id=upload_id, given=given)
    return {"digest": base64_of(blob.md5)}


@mutation.field("commitArtifact")
async def resolve_commit(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Read the manifest, check that every file came, and give the version its number."""
    return {
        "artifact": artifact_shape(await commit_artifact(request_of(info), input["artifact_id"]))
    }


async def _place(
    connection: AsyncConnection, request: Request, row: ArtifactRow, specs: list[Json]
) -> list[Json]:
    digests = [hex_of(spec["md5"]) for spec in specs]
    blobs = await want_blobs(
        connection, row.collection.entity_id, row.id, digests, now=request.now()
    )
    nodes: list[Json] = []
    for spec, blob in zip(specs, blobs, strict=True):
        parts = None
        if spec.get("upload_parts_input") and not blob.present:
            parts = await _offer_parts(connection, request, blob, spec["upload_parts_input"])
        nodes.append(
            {
                "id": encode_id("ArtifactFile", row.id, blob.md5),
                "name": spec["name"],
                "display_name": spec["name"],
                "storage_path": blob.key,
                "upload_url": None if blob.present else request.urls.upload(blob.key),
                "upload_headers": [],
                "upload_multipart_urls": parts,
                "artifact": {"id": encode_id(ARTIFACT, blob.birth_artifact_id)},
            }
        )
    return nodes


async def _offer_parts(
    connection: AsyncConnection, request: Request, blob: BlobRow, given: list[Json]
) -> Json:
    parts = check_parts({part["part_number"]: part["hex_md5"] for part in given})
    upload_id = await open_upload(connection, blob, parts, now=request.now())
    return {
        "upload_id": encode_id(UPLOAD, upload_id),
        "upload_url_parts": [
            {"part_number": number, "upload_url": request.urls.upload(part_key(upload_id, number))}
            for number in range(1, len(parts) + 1)
        ],
    }


async def _awaited_blob(
    connection: AsyncConnection, request: Request, storage_path: str
) -> BlobRow:
    """Return a blob that a version waits for which the viewer may write.

    The artifact that the client names is the blob's first one: not that version, and maybe gone.
    """
    blob = await find_blob(connection, storage_path)
    refusal = ApiError(NOT_AWAITED, status=404)
    if blob is None:
        raise refusal
    for number in await artifacts_awaiting(connection, blob):
        try:
            await require_writable_artifact(connection, request, encode_id(ARTIFACT, number))
        except ApiError as error:
            refusal = error
        else:
            return blob
    raise refusal


def _manifest_shape(request: Request, row: manifests.ManifestRow) -> Json:
    manifest_id = encode_id(MANIFEST, row.id)
    # Without its digest a manifest could be anything, and change after the commit.
    upload_url = request.urls.upload(row.key) if row.digest else None
    file: Json = {
        "id": manifest_id,
        "name": row.name,
        "upload_url": upload_url,
        "upload_headers": [],
    }
    return {"artifact_manifest": {"id": manifest_id, "file": file}}
