"""W&B's queue API: a preempted item goes back to its queue.

Our control plane makes the new item itself, with the old one's priority, and takes a repeat for
what it is. W&B's cannot: there the spec is pushed anew, as its own agent does (launch-features.md
R8), at the end of the queue.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.ports.queue import ItemQueue
from launch_async.wire import requeue_operations as operations
from launch_async.wire.transport import RequestRefused, Transport

_MALFORMED = (KeyError, TypeError, AttributeError)


class WandbRequeues:
    """The port `Requeues` over GraphQL."""

    def __init__(self, transport: Transport, queue: ItemQueue) -> None:
        self._transport = transport
        self._queue = queue
        self._repeatable = False

    async def repeatable(self) -> bool:
        """While it is not, asked each time: the answer shows that the service is there."""
        if not self._repeatable:
            try:
                answer = await self._transport.execute(operations.REQUEUE_FIELDS, {})
                fields = {field["name"] for field in answer["__type"]["inputFields"]}
            except (RequestRefused, *_MALFORMED):
                return False
            self._repeatable = "resumeCount" in fields
        return self._repeatable

    async def requeue(self, item: Item, outcome: Outcome, *, files: Sequence[str]) -> None:
        """On ours the old item is failed first: only what has ended is queued again."""
        try:
            if self._repeatable:
                await self._queue.fail(item, outcome, files=files)
                count = item.spec.resume_count + 1
                await self._transport.execute(
                    operations.REQUEUE, {"itemId": item.id, "resumeCount": count}
                )
            else:
                await self._push(item)
        except RequestRefused as error:
            raise ItemError(str(error), reason=Reason.PREEMPTED, stage=Stage.RUN) from error

    async def _push(self, item: Item) -> None:
        answer = await self._transport.execute(
            operations.PUSH,
            {
                "entityName": item.queue.entity,
                "projectName": item.queue.project,
                "queueName": item.queue.name,
                "runSpec": msgspec.json.encode(_again(item)).decode(),
            },
        )
        if not answer.get("pushToRunQueueByName"):
            msg = "the service answered the push without an item"
            raise Unavailable(msg)


def _again(item: Item) -> dict[str, Any]:
    """The spec as it came, but for what a resume changes; it leaves its sweep, as W&B's does."""
    if item.sent is None:
        msg = "the item's run spec was not kept"
        raise ItemError(msg, reason=Reason.PREEMPTED, stage=Stage.RUN)
    spec: dict[str, Any] = msgspec.json.decode(item.sent.reveal())
    spec.pop("sweep_id", None)
    return {**spec, "run_id": item.run_id, "_resume_count": item.spec.resume_count + 1}
