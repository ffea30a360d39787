"""Every mutation on runs but for their files."""

from typing import Any

from ariadne import MutationType, SchemaBindable

from launch_async.server import audit
from launch_async.server import runs as rules
from launch_async.server.context import Info, request_of
from launch_async.server.errors import ApiError
from launch_async.server.files import blob_key
from launch_async.server.ids import decode_run_id
from launch_async.server.run_artifacts import delete_outputs

mutation = MutationType()
BINDABLES: list[SchemaBindable] = [mutation]

Json = dict[str, Any]

ALLOWED_BEFORE = {
    "pending": frozenset({"running", "failed", "crashed", "preempted"}),
    "failed": frozenset({"pending", "running"}),
}
"""What `Api().run(...).update_state()` may do: target state -> states before."""


@mutation.field("upsertBucket")
async def resolve_upsert_bucket(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Make a run, or change one; null leaves a field as it is."""
    request = request_of(info)
    async with request.store.write() as connection:
        bucket, inserted = await rules.upsert_run(connection, request, input)
    return {"bucket": bucket, "inserted": inserted}


@mutation.field("updateRunState")
async def resolve_update_run_state(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Let a person requeue a run, or call it failed."""
    request = request_of(info)
    state: str = input["state"]
    async with request.store.write() as connection:
        row = await rules.require_members_run(connection, request, input["id"])
        if row.state not in ALLOWED_BEFORE.get(state, ()):
            raise ApiError(f"a run that is {row.state} cannot be made {state}")
        await rules.set_run_state(connection, row.id, state, now=request.now())
    return {"success": True}


@mutation.field("stopRun")
async def resolve_stop_run(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Ask a run to stop; one that ended already is no error."""
    request = request_of(info)
    async with request.store.write() as connection:
        await rules.request_stop(connection, request, input["id"])
        run_name, project, entity = decode_run_id(input["id"])
        await audit.record(connection, request, "run.stop", entity, f"{project}/{run_name}")
    return {"success": True}


@mutation.field("deleteRun")
async def resolve_delete_run(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Delete a run with its files; what it logged as artifacts goes only when that is asked for.

    A crash before the last line leaves bytes that nothing refers to, never a row without them.
    """
    request = request_of(info)
    async with request.store.write() as connection:
        row = await rules.require_members_run(connection, request, input["id"])
        if input.get("delete_artifacts"):
            await delete_outputs(connection, request, row, now=request.now())
        file_ids = await rules.delete_run(connection, row, now=request.now())
        subject = f"{row.project.name}/{row.name}"
        await audit.record(connection, request, "run.delete", row.project.entity_name, subject)
    for file_id in file_ids:
        await request.blobs.delete(blob_key(row.id, file_id))
    return {"client_mutation_id": input.get("client_mutation_id")}


@mutation.field("notifyScriptableRunAlert")
async def resolve_notify_alert(
    _: None,
    info: Info,
    input: Json,  # noqa: A002 - GraphQL's word
) -> Json:
    """Keep what `run.alert()` says."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await rules.require_writable_run(
            connection,
            request,
            entity=input["entity_name"],
            project=input["project_name"],
            run_name=input["run_name"],
        )
        await rules.add_alert(
            connection,
            row,
            title=input["title"],
            text=input["text"],
            severity=input.get("severity") or "INFO",
            now=request.now(),
        )
    return {"success": True}
