"""Mutations of queue items: pushed, cancelled, requeued and deleted by people; popped, acked and
failed by agents.
"""

from typing import Any

import msgspec
from ariadne import MutationType, SchemaBindable
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import audit, cancels, claims, items, queueing, queues, run_keys
from launch_async.server.access import Role, require_role
from launch_async.server.agents import read_poll
from launch_async.server.context import Info, Request, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number, encode_id
from launch_async.server.items import ItemRow
from launch_async.server.leases import ITEM
from launch_async.server.projects import LAUNCH_PROJECT, check_name
from launch_async.server.queues import QueueRow
from launch_async.server.run_specs import without_secrets
from launch_async.server.users import digest_of

mutation = MutationType()

BINDABLES: list[SchemaBindable] = [mutation]

Json = dict[str, Any]


@mutation.field("pushToRunQueueByName")
async def push_to_run_queue_by_name(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Put a run spec into a queue that is known by its name."""
    request = request_of(info)

    async def work(connection: AsyncConnection) -> Json:
        queue = await queues.require_queue(connection, *_queue_names(request, input))
        return await _push(connection, request, queue, input)

    return await request.store.transact(work)


@mutation.field("pushToRunQueue")
async def push_to_run_queue(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Put a run spec into a queue that is known by its id: the client's second try."""
    request = request_of(info)
    async with request.store.write() as connection:
        queue = await queues.find_queue_by_id(connection, request, input["queue_id"])
        if queue is None:
            raise ApiError("this queue is gone; push to another one", status=404)
        require_role(request.viewer, queue.entity_name, Role.MEMBER)
        return await _push(connection, request, queue, input)


@mutation.field("popFromRunQueue")
async def pop_from_run_queue(_: None, info: Info, input: Json) -> Json | None:  # noqa: A002
    """Lease the first item; null when there is none for now or the agent was asked to stop."""
    request = request_of(info)
    given = input.get("launch_agent_id")
    now = request.now()

    async def work(connection: AsyncConnection) -> Json | None:
        entity, project, queue = _queue_names(request, input)
        poll = await read_poll(
            connection, request, entity=entity, project=project, queue=queue, agent_id=given
        )
        if poll.stop_polling:
            return None
        key = run_keys.fresh_key() if request.settings.run_keys else None
        digest = None if key is None else digest_of(key)
        popped = await claims.pop_item(connection, poll, digest=digest, now=now)
        if popped is None:
            return None
        spec = msgspec.json.decode(popped.run_spec)
        if key is not None:
            spec = await run_keys.with_key(connection, spec, popped.id, key)
        return {
            "run_queue_item_id": encode_id(ITEM, popped.id),
            "run_spec": spec,
            "lease": popped.lease,
        }

    return await request.store.transact(work)


@mutation.field("ackRunQueueItem")
async def ack_run_queue_item(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Claim an item for a run."""
    request = request_of(info)
    run_name = input["run_name"]
    check_name("run", run_name)

    async def work(connection: AsyncConnection) -> bool:
        item = await _members_item(connection, request, input)
        return item is not None and await claims.ack_item(
            connection,
            item,
            run_name=run_name,
            lease=request.lease,
            viewer=request.viewer,
            now=request.now(),
        )

    return {"success": await request.store.transact(work)}


@mutation.field("failRunQueueItem")
async def fail_run_queue_item(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Take an agent's word that an item failed. Never an error: the agent would keep its slot."""
    request = request_of(info)
    async with request.store.write() as connection:
        item = await _members_item(connection, request, input)
        if item is None:
            return {"success": False}
        await claims.fail_item(
            connection,
            item,
            message=input["message"],
            stage=input["stage"],
            file_paths=input.get("file_paths") or [],
            lease=request.lease,
            viewer=request.viewer,
            now=request.now(),
        )
    return {"success": True}


@mutation.field("updateRunQueueItemWarning")
async def update_run_queue_item_warning(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Note something that people should know about an item."""
    request = request_of(info)
    async with request.store.write() as connection:
        item = await _members_item(connection, request, input)
        if item is None:
            return {"success": False}
        await claims.warn_of_item(
            connection,
            item.id,
            message=input["message"],
            stage=input["stage"],
            file_paths=input.get("file_paths") or [],
            lease=request.lease,
            viewer=request.viewer,
            now=request.now(),
        )
    return {"success": True}


@mutation.field("cancelRunQueueItem")
async def cancel_run_queue_item(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Stop an item that waits; ask the run of one that an agent has claimed to stop."""
    request = request_of(info)
    async with request.store.write() as connection:
        item = await _required_item(connection, request, input)
        cancelled = await cancels.cancel_item(connection, request, item)
        await _note(connection, request, "item.cancel", item)
    return {"success": cancelled.success, "state": cancelled.state}


@mutation.field("cancelRunQueueItems")
async def cancel_run_queue_items(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Cancel all that waits in a queue, and what runs if asked for."""
    request = request_of(info)
    async with request.store.read() as connection:
        queue = await queues.find_queue_by_id(connection, request, input["queue_id"])
    if queue is None:
        raise ApiError(f"queue {input['queue_id']!r} not found", status=404)
    require_role(request.viewer, queue.entity_name, Role.MEMBER)
    include_running = bool(input.get("include_running"))
    async with request.store.write() as connection:  # before: it takes many transactions
        await audit.record(
            connection,
            request,
            "queue.cancel_items",
            queue.entity_name,
            queue.name,
            include_running=include_running,
        )
    cancelled = await cancels.cancel_queue(request, queue.id, include_running=include_running)
    return {"cancelled": cancelled}


@mutation.field("requeueRunQueueItem")
async def requeue_run_queue_item(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Put a new item with an ended one's spec into the queue."""
    request = request_of(info)
    async with request.store.write() as connection:
        item = await _required_item(connection, request, input)
        keep_run = bool(input.get("keep_run"))
        resume_count = input.get("resume_count")
        number = await queueing.requeue(
            connection, request, item, keep_run=keep_run, resume_count=resume_count
        )
        again = encode_id(ITEM, number)
        await _note(connection, request, "item.requeue", item, again=again, keep_run=keep_run)
    return {"run_queue_item_id": encode_id(ITEM, number)}


@mutation.field("deleteFromRunQueue")
async def delete_from_run_queue(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Delete an item that no agent has claimed, or that has ended; its run stays."""
    request = request_of(info)
    async with request.store.write() as connection:
        queue = await queues.find_queue_by_id(connection, request, input["queue_id"])
        if queue is not None:
            require_role(request.viewer, queue.entity_name, Role.MEMBER)
        number = decode_number(input["run_queue_item_id"], ITEM)
        if queue is None or not await cancels.delete_item(connection, number, queue_id=queue.id):
            raise ApiError("this item is not in that queue", status=404)
        subject = encode_id(ITEM, number)
        await audit.record(
            connection, request, "item.delete", queue.entity_name, subject, queue=queue.name
        )
    return {"success": True}


def _queue_names(request: Request, given: Json) -> tuple[str, str, str]:
    """Return entity, project and name of the queue that is meant; 403 unless it is a member's."""
    entity = given.get("entity_name") or request.viewer.entity
    require_role(request.viewer, entity, Role.MEMBER)
    return entity, given.get("project_name") or LAUNCH_PROJECT, given["queue_name"]


async def _members_item(
    connection: AsyncConnection, request: Request, given: Json
) -> ItemRow | None:
    """Return the item that an agent speaks of; None when it is not the agent's to see."""
    item = await items.find_item(connection, request, given["run_queue_item_id"])
    if item is not None:
        require_role(request.viewer, item.queue_entity, Role.MEMBER)
    return item


async def _required_item(connection: AsyncConnection, request: Request, given: Json) -> ItemRow:
    item = await _members_item(connection, request, given)
    if item is None:
        raise ApiError(f"item {given['run_queue_item_id']!r} not found", status=404)
    return item


async def _push(
    connection: AsyncConnection, request: Request, queue: QueueRow, given: Json
) -> Json:
    pushed = await queueing.push(
        connection,
        request,
        queue,
        run_spec=given["run_spec"],
        template_values=given.get("template_variable_values"),
        priority=given.get("priority"),
    )
    item_id = encode_id(ITEM, pushed.id)
    await audit.record(
        connection,
        request,
        "item.push",
        queue.entity_name,
        item_id,
        queue=queue.name,
        project=f"{pushed.spec['entity']}/{pushed.spec['project']}",
    )
    return {
        "run_queue_item_id": item_id,
        "run_spec": msgspec.json.encode(without_secrets(pushed.spec)).decode(),
    }


async def _note(
    connection: AsyncConnection, request: Request, action: str, item: ItemRow, **details: Any
) -> None:
    subject, queue = encode_id(ITEM, item.id), item.queue_name
    await audit.record(
        connection, request, action, item.queue_entity, subject, queue=queue, **details
    )
