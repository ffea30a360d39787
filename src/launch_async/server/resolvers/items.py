"""Resolvers of queue items as people and agents read them."""

from collections.abc import Sequence
from typing import Any, Final

import anyio
import msgspec
from ariadne import ObjectType, SchemaBindable

from launch_async.domain.lease import ItemState
from launch_async.server import items
from launch_async.server.agents import AGENT, AgentRow
from launch_async.server.context import Info, Request, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number, decode_numbers, encode_id
from launch_async.server.items import ItemRow, WarningRow
from launch_async.server.leases import ITEM
from launch_async.server.queues import QueueRow
from launch_async.server.run_specs import without_secrets

PAGE: Final = 100
SHOWN: Final = 40  # characters of a word that was wrong
PLACE: Final = "RunQueuePlace"
QUEUE_ORDER: Final = "QUEUE"

queue_type = ObjectType("RunQueue")
item_type = ObjectType("RunQueueItem")
agent_type = ObjectType("LaunchAgent")

BINDABLES: list[SchemaBindable] = [queue_type, item_type, agent_type]

Json = dict[str, Any]


class Places:
    """The places of a page's items in their queue: counted once, and only if somebody asks."""

    def __init__(self, request: Request, queue_id: int, item_ids: Sequence[int]) -> None:
        self._request = request
        self._queue_id = queue_id
        self._item_ids = item_ids
        self._turn = anyio.Lock()
        self._found: dict[int, int] | None = None

    async def of(self, item_id: int) -> int | None:
        """Return an item's place; None for one that does not wait."""
        async with self._turn:  # the items of a page are resolved side by side
            if self._found is None:
                async with self._request.store.read() as connection:
                    self._found = await items.places(
                        connection, self._queue_id, self._item_ids, now=self._request.now()
                    )
        return self._found.get(item_id)


@queue_type.field("runQueueItem")
async def resolve_item(queue: QueueRow, info: Info, id: str) -> Json | None:  # noqa: A002
    """Return an item of this queue."""
    request = request_of(info)
    async with request.store.read() as connection:
        row = await items.find_item(connection, request, id, queue_id=queue.id)
        if row is None:
            return None
        warnings = await items.warnings_of(connection, [row.id])
    return _shown(request, row, warnings[row.id], Places(request, queue.id, [row.id]))


@queue_type.field("runQueueItems")
async def resolve_items(
    queue: QueueRow,
    info: Info,
    *,
    first: int | None = None,
    after: str | None = None,
    states: list[str] | None = None,
    order: str | None = None,
) -> Json:
    """Return a page of a queue's items, the newest first, or what waits in the queue's order."""
    request = request_of(info)
    limit = PAGE if first is None else max(0, min(first, PAGE))
    by_place = order == QUEUE_ORDER
    if by_place and states is not None:
        raise ApiError("order QUEUE lists what waits; leave the states out, or the order")
    async with request.store.read() as connection:
        if by_place:
            rows = await items.list_waiting(
                connection,
                queue.id,
                after=_place(after),
                limit=limit + 1,
                now=request.now(),
            )
        else:
            rows = await items.list_items(
                connection,
                queue.id,
                before_id=decode_number(after, ITEM) if after else None,
                limit=limit + 1,
                states=None if states is None else _read_states(states),
                now=request.now(),
            )
        warnings = await items.warnings_of(connection, [row.id for row in rows])
    page = rows[:limit]
    places = Places(request, queue.id, [row.id for row in page])
    edges = [
        {
            "node": _shown(request, row, warnings[row.id], places),
            "cursor": encode_id(PLACE, row.priority, row.id)
            if by_place
            else encode_id(ITEM, row.id),
        }
        for row in page
    ]
    end = edges[-1]["cursor"] if edges else None
    return {
        "edges": edges,
        "page_info": {"end_cursor": end, "has_next_page": len(rows) > limit},
    }


@agent_type.field("items")
async def resolve_agent_items(agent: AgentRow, info: Info) -> list[Json]:
    """Return what an agent holds."""
    request = request_of(info)
    async with request.store.read() as connection:
        rows = await items.items_of_agent(
            connection, agent.id, agent.entity_name, limit=PAGE, now=request.now()
        )
        warnings = await items.warnings_of(connection, [row.id for row in rows])
    return [_shown(request, row, warnings[row.id], None) for row in rows]


@item_type.field("position")
async def resolve_position(item: Json, _: Info) -> int | None:
    """Return an item's place among what waits in its queue."""
    places: Places | None = item["places"]
    return None if places is None else await places.of(item["number"])


def _read_states(words: Sequence[str]) -> set[ItemState]:
    unknown = set(words) - set(ItemState)
    if unknown:
        known = ", ".join(ItemState)
        raise ApiError(f"{min(unknown)[:SHOWN]!r} is no state of an item; there are {known}")
    return set(map(ItemState, words))


def _place(after: str | None) -> tuple[int, int] | None:
    if not after:
        return None
    priority, item_id = decode_numbers(after, PLACE, 2)
    return priority, item_id


def _shown(
    request: Request, row: ItemRow, warnings: list[WarningRow], places: Places | None
) -> Json:
    spec = without_secrets(msgspec.json.decode(row.run_spec))
    own_args = row.own_resource_args
    return {
        **msgspec.structs.asdict(row),
        "id": encode_id(ITEM, row.id),
        "number": row.id,
        "places": places,
        "state": row.standing(request.now()),
        "associated_run_id": row.run_name,
        "run_project": spec["project"],
        "run_spec": spec,
        "own_resource_args": None if own_args is None else msgspec.json.decode(own_args),
        "requeued_from": None if row.requeued_from is None else encode_id(ITEM, row.requeued_from),
        "agent_id": None if row.agent_id is None else encode_id(AGENT, row.agent_id),
        "agent_lost": row.agent_lost(request.now()),
        "file_paths": msgspec.json.decode(row.file_paths),
        "warnings": [
            {**msgspec.structs.asdict(each), "file_paths": msgspec.json.decode(each.file_paths)}
            for each in warnings
        ],
    }
