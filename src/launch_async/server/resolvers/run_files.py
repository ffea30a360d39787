"""Files of runs: listing, uploading and deleting them."""

from collections.abc import Sequence
from typing import Any

from ariadne import MutationType, ObjectType, SchemaBindable

from launch_async.server import files
from launch_async.server import runs as rules
from launch_async.server.context import Info, Request, request_of
from launch_async.server.ids import decode_numbers, encode_id, encode_run_id
from launch_async.server.resolvers.projects import connection_of, page_size, page_start
from launch_async.server.run_rows import RunRow
from launch_async.server.storage import content_type_of

run = ObjectType("Run")
mutation = MutationType()
BINDABLES: list[SchemaBindable] = [run, mutation]

FILE_KIND = "RunFile"

Json = dict[str, Any]


@run.field("fileCount")
async def resolve_file_count(row: RunRow, info: Info) -> int:
    """Return how many files were uploaded."""
    async with request_of(info).store.read() as connection:
        return await files.count_files(connection, row.id)


@run.field("files")
async def resolve_files(
    row: RunRow,
    info: Info,
    *,
    names: Sequence[str | None] | None = None,
    after: str | None = None,
    first: int | None = None,
    pattern: str | None = None,
) -> Json:
    """Return a page of the run's files."""
    request = request_of(info)
    size = page_size(first)
    async with request.store.read() as connection:
        found = await files.list_files(
            connection,
            row.id,
            names=[name for name in names or () if name is not None],
            pattern=pattern,
            after_id=page_start(after),
            limit=size + 1,
        )
        total = await files.count_files(connection, row.id)
    shown = found[:size]
    return connection_of(
        [file_node(request, one) for one in shown],
        [str(one.id) for one in shown],
        has_next=len(found) > size,
        total_count=total,
    )


@mutation.field("createRunFiles")
async def resolve_create_run_files(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Return where to upload each file, in the order asked for."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await rules.require_writable_run(
            connection,
            request,
            entity=input.get("entity_name"),
            project=input.get("project_name"),
            run_name=input["run_name"],
        )
        made = await files.ensure_files(connection, row, input["files"], now=request.now())
    return {
        "run_id": encode_run_id(row.name, row.project.name, row.project.entity_name),
        "upload_headers": [],
        "files": [file_node(request, one) for one in made],
    }


@mutation.field("markRunFilesUploaded")
async def resolve_mark_run_files_uploaded(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Tell whether the files are there: each upload was noted when it ended."""
    request = request_of(info)
    names: list[str] = input["files"]
    async with request.store.read() as connection:
        row = await rules.require_writable_run(
            connection,
            request,
            entity=input.get("entity_name"),
            project=input.get("project_name"),
            run_name=input["run_name"],
        )
        found = await files.list_files(connection, row.id, names=names, limit=len(names))
    there = {one.name for one in found if one.uploaded_at is not None}
    return {"success": there.issuperset(names)}


@mutation.field("deleteFiles")
async def resolve_delete_files(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Delete files of runs, bytes and all; one that is gone already is no error."""
    request = request_of(info)
    gone: list[str] = []
    async with request.store.write() as connection:
        for opaque in input["files"]:
            run_id, file_id = _numbers(opaque)
            found = await files.find_file(connection, run_id, file_id)
            if found is None:
                continue
            await rules.require_write_by_number(connection, request, run_id)
            await files.delete_file(connection, found)
            gone.append(found.key)
    for key in gone:
        await request.blobs.delete(key)
    return {"success": True}


def file_node(request: Request, one: files.RunFile) -> Json:
    """Shape a run's file for GraphQL."""

    def url(_info: Info, *, upload: bool | None = None) -> str:
        return request.urls.upload(one.key) if upload else direct_url

    def upload_url(_info: Info) -> str:
        return request.urls.upload(one.key)

    direct_url = request.urls.download(one.key, filename=one.name)
    return {
        "id": encode_id(FILE_KIND, one.run_id, one.id),
        "name": one.name,
        "display_name": one.name,
        "url": url,
        "direct_url": direct_url,
        "upload_url": upload_url,
        "upload_headers": [],
        "size_bytes": one.size or 0,
        "mimetype": content_type_of(one.name),
        "updated_at": one.uploaded_at or one.created_at,
        "md5": one.md5_base64,
        "digest": one.md5_base64,
        "storage_path": one.key,
    }


def _numbers(opaque: str) -> tuple[int, int]:
    run_id, file_id = decode_numbers(opaque, FILE_KIND, 2)
    return run_id, file_id
