"""Fields that only older clients ask for."""

from typing import Any, Final

import msgspec
from ariadne import ObjectType, SchemaBindable

from launch_async.server import files
from launch_async.server.context import Info, request_of
from launch_async.server.projects import ProjectRow
from launch_async.server.resolvers.runs import resolve_runs
from launch_async.server.run_rows import RunRow

METADATA: Final = "wandb-metadata.json"
MAX_METADATA_BYTES: Final = 1024 * 1024

upsert_payload = ObjectType("UpsertBucketPayload")
project_type = ObjectType("Project")
run_type = ObjectType("Run")

BINDABLES: list[SchemaBindable] = [upsert_payload, project_type, run_type]

Json = dict[str, Any]


class GitInfo(msgspec.Struct, frozen=True):
    """Where a run's code came from."""

    remote: str | None = None
    commit: str | None = None


class RunInfo(msgspec.Struct, frozen=True):
    """What we tell of `wandb-metadata.json`."""

    program: str | None = None
    args: list[str] | None = None
    os: str | None = None
    python: str | None = None
    colab: str | None = None
    executable: str | None = None
    code_saved: bool | None = None
    cpu_count: int | None = None
    gpu_count: int | None = None
    gpu: str | None = None
    git: GitInfo | None = None


@upsert_payload.field("serverSettings")
def resolve_server_settings(_: Any, _info: Info) -> Json:
    """Return what the server wants the user of a run to read: nothing."""
    return {"server_messages": []}


@project_type.field("buckets")
async def resolve_buckets(row: ProjectRow, info: Info, **page: Any) -> Json:
    """Return a page of a project's runs."""
    found: Json = await resolve_runs(row, info, **page)
    return found


@run_type.field("runInfo")
async def resolve_run_info(row: RunRow, info: Info) -> RunInfo | None:
    """Read what the client wrote about the machine and the code."""
    request = request_of(info)
    async with request.store.read() as connection:
        found = await files.list_files(connection, row.id, names=[METADATA], limit=1)
    size = found[0].size if found else None
    if not size or size > MAX_METADATA_BYTES:
        return None
    try:
        chunks = await request.blobs.get(found[0].key)
        content = b"".join([chunk async for chunk in chunks])
        return msgspec.json.decode(content, type=RunInfo, strict=False)
    except (FileNotFoundError, msgspec.DecodeError, RecursionError):
        return None
