"""Resolvers of queue items as people and agents read them."""

from typing import Any

import msgspec
from ariadne import ObjectType, SchemaBindable

from launch_async.server import items
from launch_async.server.agents import AGENT
from launch_async.server.context import Info, Request, request_of
from launch_async.server.ids import decode_number, encode_id
from launch_async.server.items import ItemRow, WarningRow
from launch_async.server.leases import ITEM
from launch_async.server.queues import QueueRow
from launch_async.server.run_specs import without_secrets

PAGE = 100

queue_type = ObjectType("RunQueue")

BINDABLES: list[SchemaBindable] = [queue_type]

Json = dict[str, Any]


@queue_type.field("runQueueItem")
async def resolve_item(queue: QueueRow, info: Info, id: str) -> Json | None:  # noqa: A002
    """Return an item of this queue."""
    request = request_of(info)
    async with request.store.read() as connection:
        row = await items.find_item(connection, request, id, queue_id=queue.id)
        if row is None:
            return None
        warnings = await items.warnings_of(connection, [row.id])
    return _shown(request, row, warnings[row.id])


@queue_type.field("runQueueItems")
async def resolve_items(
    queue: QueueRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    states: list[str] | None = None,
) -> Json:
    """Return a page of a queue's items, the newest first."""
    request = request_of(info)
    limit = PAGE if first is None else max(0, min(first, PAGE))
    async with request.store.read() as connection:
        rows = await items.list_items(
            connection,
            queue.id,
            before_id=decode_number(after, ITEM) if after else None,
            limit=limit + 1,
            states=states,
            now=request.now(),
        )
        warnings = await items.warnings_of(connection, [row.id for row in rows])
    edges = [
        {"node": _shown(request, row, warnings[row.id]), "cursor": encode_id(ITEM, row.id)}
        for row in rows[:limit]
    ]
    end = edges[-1]["cursor"] if edges else None
    return {
        "edges": edges,
        "page_info": {"end_cursor": end, "has_next_page": len(rows) > limit},
    }


def _shown(request: Request, row: ItemRow, warnings: list[WarningRow]) -> Json:
    spec = without_secrets(msgspec.json.decode(row.run_spec))
    return {
        **msgspec.structs.asdict(row),
        "id": encode_id(ITEM, row.id),
        "state": row.standing(request.now()),
        "associated_run_id": row.run_name,
        "run_project": spec["project"],
        "run_spec": spec,
        "agent_id": None if row.agent_id is None else encode_id(AGENT, row.agent_id),
        "file_paths": msgspec.json.decode(row.file_paths),
        "warnings": [
            {**msgspec.structs.asdict(each), "file_paths": msgspec.json.decode(each.file_paths)}
            for each in warnings
        ],
    }
