"""The mutation that takes a run back to an earlier step."""

from typing import Any

from ariadne import MutationType, SchemaBindable

from launch_async.server import audit, rewinds
from launch_async.server import runs as rules
from launch_async.server.context import Info, request_of
from launch_async.server.ids import encode_run_id
from launch_async.server.projects import DEFAULT_PROJECT

mutation = MutationType()
BINDABLES: list[SchemaBindable] = [mutation]

Json = dict[str, Any]


@mutation.field("rewindRun")
async def resolve_rewind_run(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Take a run back and return it as it is then."""
    request = request_of(info)
    entity = input.get("entity_name") or request.viewer.entity
    project = input.get("project_name") or DEFAULT_PROJECT
    storage_id = encode_run_id(input["run_name"], project, entity)
    async with request.store.write() as connection:
        run = await rules.require_members_run(connection, request, storage_id)
        await rewinds.rewind(
            connection, run, metric=input["metric_name"], value=input["metric_value"]
        )
        subject = f"{run.project.name}/{run.name}"
        await audit.record(
            connection, request, "run.rewind", entity, subject, step=input["metric_value"]
        )
        rewound = await rules.require_members_run(connection, request, storage_id)
    return {"rewound_run": rewound}
