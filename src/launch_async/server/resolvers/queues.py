"""Resolvers of queues and their configs."""

from collections.abc import Sequence
from typing import Any

import msgspec
from ariadne import MutationType, ObjectType, SchemaBindable
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import audit, cancels, items, queues, resource_configs
from launch_async.server.access import Role, require_role
from launch_async.server.context import Info, Request, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number, encode_id
from launch_async.server.projects import (
    LAUNCH_PROJECT,
    EntityRow,
    ProjectRow,
    ensure_project,
    resolve_entity,
)
from launch_async.server.queues import QUEUE, UNPRIORITIZED, QueueRow
from launch_async.server.resource_configs import CONFIG, ConfigRow

mutation = MutationType()
project_type = ObjectType("Project")
entity_type = ObjectType("Entity")
queue_type = ObjectType("RunQueue")
config_type = ObjectType("DefaultResourceConfig")

BINDABLES: list[SchemaBindable] = [mutation, project_type, entity_type, queue_type, config_type]

Json = dict[str, Any]


@project_type.field("runQueues")
async def run_queues(project: ProjectRow, info: Info) -> list[QueueRow]:
    """Return a project's queues."""
    async with request_of(info).store.read() as connection:
        return await queues.list_queues(connection, project.id)


@project_type.field("runQueue")
async def run_queue(project: ProjectRow, info: Info, name: str) -> QueueRow | None:
    """Return a project's queue by its name."""
    async with request_of(info).store.read() as connection:
        return await queues.find_queue(connection, project.id, name)


@queue_type.field("id")
def queue_id(queue: QueueRow, _: Info) -> str:
    """Return the opaque id."""
    return encode_id(QUEUE, queue.id)


@queue_type.field("defaultResourceConfigID")
def queue_config_id(queue: QueueRow, _: Info) -> str | None:
    """Return the opaque id of its config."""
    return None if queue.config_id is None else encode_id(CONFIG, queue.config_id)


@queue_type.field("externalLinks")
def queue_links(queue: QueueRow, _: Info) -> Any:
    """Return its links as an object."""
    return msgspec.json.decode(queue.links)


@queue_type.field("isPaused")
def queue_is_paused(queue: QueueRow, _: Info) -> bool:
    """Tell whether its items wait for somebody to resume it."""
    return queue.paused_at is not None


@queue_type.field("resource")
def queue_resource(queue: QueueRow, _: Info) -> str | None:
    """Return its resource type."""
    return None if queue.config is None else queue.config.resource


@queue_type.field("defaultResourceConfig")
def queue_config(queue: QueueRow, _: Info) -> ConfigRow | None:
    """Return its config."""
    return queue.config


@queue_type.field("itemCounts")
async def queue_counts(queue: QueueRow, info: Info) -> dict[str, int]:
    """Return how many items stand in each state."""
    request = request_of(info)
    async with request.store.read() as connection:
        return await items.count_items(connection, queue.id, now=request.now())


@entity_type.field("defaultResourceConfig")
async def default_resource_config(
    entity: EntityRow,
    info: Info,
    id: str,  # noqa: A002
) -> ConfigRow | None:
    """Return an entity's config by its opaque id."""
    async with request_of(info).store.read() as connection:
        return await resource_configs.find_config(connection, entity.id, decode_number(id, CONFIG))


@config_type.field("id")
def config_id(config: ConfigRow, _: Info) -> str:
    """Return the opaque id."""
    return encode_id(CONFIG, config.id)


@config_type.field("config")
def config_document(config: ConfigRow, _: Info) -> Any:
    """Return the document as an object."""
    return msgspec.json.decode(config.config)


@config_type.field("templateVariables")
def config_variables(config: ConfigRow, _: Info) -> list[dict[str, Any]]:
    """Return its variables; a schema is text, its keys in the order they were given."""
    return [
        {
            "name": name,
            "schema": msgspec.json.encode(body["schema"]).decode(),
            "description": body.get("description"),
        }
        for name, body in msgspec.json.decode(config.template_variables).items()
    ]


@mutation.field("createDefaultResourceConfig")
async def create_default_resource_config(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Store a config that a queue may then be made with."""
    request = request_of(info)
    config = resource_configs.check_config(
        input["resource"],
        input["config"],
        input.get("template_variables"),
        resource_types=request.settings.resource_types,
    )
    async with request.store.write() as connection:
        entity = await resolve_entity(connection, request, input["entity_name"], need=Role.ADMIN)
        number = await resource_configs.create_config(
            connection, entity.id, config, now=request.now()
        )
        subject = encode_id(CONFIG, number)
        await audit.record(
            connection, request, "config.create", entity.name, subject, resource=config.resource
        )
    return {"default_resource_config_id": encode_id(CONFIG, number), "success": True}


@mutation.field("createRunQueue")
async def create_run_queue(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Make a queue."""
    request = request_of(info)
    given_config = input.get("default_resource_config_id")
    async with request.store.write() as connection:
        entity = await resolve_entity(
            connection, request, input.get("entity_name"), need=Role.ADMIN
        )
        project = await ensure_project(
            connection,
            entity.id,
            input.get("project_name") or LAUNCH_PROJECT,
            user_id=request.viewer.user_id,
        )
        number = await queues.create_queue(
            connection,
            request,
            project,
            name=input["queue_name"],
            access=input["access"],
            prioritization_mode=input.get("prioritization_mode") or UNPRIORITIZED,
            config_id=None if given_config is None else decode_number(given_config, CONFIG),
        )
        await audit.record(connection, request, "queue.create", entity.name, input["queue_name"])
    return {"success": True, "queue_id": encode_id(QUEUE, number)}


@mutation.field("upsertRunQueue")
async def upsert_run_queue(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Make or change a queue."""
    request = request_of(info)
    config = resource_configs.check_config(
        input["resource_type"],
        input["resource_config"],
        input.get("template_variables"),
        resource_types=request.settings.resource_types,
    )
    async with request.store.write() as connection:
        entity = await resolve_entity(connection, request, input["entity_name"], need=Role.ADMIN)
        project = await ensure_project(
            connection, entity.id, input["project_name"], user_id=request.viewer.user_id
        )
        before = await queues.find_queue(connection, project.id, input["queue_name"])
        number = await queues.upsert_queue(
            connection,
            request,
            project,
            name=input["queue_name"],
            config=config,
            prioritization_mode=input.get("prioritization_mode"),
            external_links=input.get("external_links"),
        )
        await audit.record(
            connection,
            request,
            "queue.create" if before is None else "queue.edit",
            entity.name,
            input["queue_name"],
            resource=config.resource,
            prioritization_mode=input.get("prioritization_mode"),
        )
    return {
        "success": True,
        "config_schema_validation_errors": config.warnings,
        "queue_id": encode_id(QUEUE, number),
    }


@mutation.field("updateRunQueue")
async def update_run_queue(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Pause, resume or limit a queue."""
    request = request_of(info)
    async with request.store.write() as connection:
        queue = await queues.find_queue_by_id(connection, request, input["queue_id"])
        if queue is None:
            raise ApiError(f"queue {input['queue_id']!r} not found", status=404)
        require_role(request.viewer, queue.entity_name, Role.ADMIN)
        changed = await queues.change_queue(
            connection,
            queue,
            paused=input.get("paused"),
            concurrency_limit=input.get("concurrency_limit"),
            now=request.now(),
        )
        await _note_change(connection, request, queue, input)
    return {"run_queue": changed}


@mutation.field("deleteRunQueues")
async def delete_run_queues(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Delete queues: all of them, or none when one is unknown."""
    request = request_of(info)
    async with request.store.read() as connection:
        found = await _own_queues(connection, request, input["queue_ids"])
    await cancels.empty_queues(request.store, [queue.id for queue in found])
    async with request.store.write() as connection:
        found = await _own_queues(connection, request, input["queue_ids"])
        await queues.delete_queues(connection, found)
        for queue in found:
            await audit.record(connection, request, "queue.delete", queue.entity_name, queue.name)
    return {"success": True}


async def _own_queues(
    connection: AsyncConnection, request: Request, queue_ids: Sequence[str]
) -> list[QueueRow]:
    """Return the queues that an admin of theirs names, each once."""
    found: dict[int, QueueRow] = {}
    for given, queue in (await queues.find_queues(connection, request, queue_ids)).items():
        if queue is None:
            raise ApiError(f"queue {given!r} not found", status=404)
        require_role(request.viewer, queue.entity_name, Role.ADMIN)
        found[queue.id] = queue
    return list(found.values())


async def _note_change(
    connection: AsyncConnection, request: Request, queue: QueueRow, given: Json
) -> None:
    entity, paused, limit = queue.entity_name, given.get("paused"), given.get("concurrency_limit")
    if paused is not None:
        action = "queue.pause" if paused else "queue.resume"
        await audit.record(connection, request, action, entity, queue.name)
    if limit is not None:
        await audit.record(
            connection, request, "queue.edit", entity, queue.name, concurrency_limit=limit
        )
