"""Queues' resource configs over W&B's API, kept for a short time."""

import anyio
import msgspec
import structlog

from launch_async.domain.errors import Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.domain.policy import QueueDefaults
from launch_async.wire.config_operations import (
    QUEUE_METADATA,
    RESOURCE_CONFIG,
    decode_resource_config,
)
from launch_async.wire.transport import RequestRefused, Transport

KEEP_SECONDS = 60.0
FRESH_SECONDS = 1.0
"""What was read less than this ago is fresh: refused items must not cost a request each."""
READ_SECONDS = 20.0
"""Longest read; with an answer that is still missing, items wait for the next one."""
REST_SECONDS = 10.0
"""After a read that failed nobody asks for so long."""
MAX_QUEUES = 2000

_MALFORMED = (KeyError, TypeError, AttributeError, ValueError)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Read(msgspec.Struct, frozen=True):
    at: float
    defaults: QueueDefaults | None = None
    failure: str = ""


class WandbQueueConfigs:
    """The port `QueueConfigs`; many askers of one queue share a read."""

    def __init__(
        self,
        transport: Transport,
        *,
        keep_seconds: float = KEEP_SECONDS,
        read_seconds: float = READ_SECONDS,
        max_queues: int = MAX_QUEUES,
    ) -> None:
        self._transport = transport
        self._keep_seconds = keep_seconds
        self._read_seconds = read_seconds
        self._max_queues = max_queues
        self._reads: dict[QueueRef, _Read] = {}
        self._locks: dict[QueueRef, anyio.Lock] = {}
        self._told: set[QueueRef] = set()

    async def defaults_of(self, queue: QueueRef, *, fresh: bool = False) -> QueueDefaults | None:
        """The queue's config; None when the service does not show it, which is said once."""
        async with self._locks.setdefault(queue, anyio.Lock()):
            read = self._reads.get(queue)
            if read is None or self._is_old(read, fresh=fresh):
                read = await self._read(queue)
                self._keep(queue, read)
        if read.failure:
            raise Unavailable(read.failure)
        return read.defaults

    def _is_old(self, read: _Read, *, fresh: bool) -> bool:
        if read.failure:
            allowed = REST_SECONDS
        else:
            allowed = min(FRESH_SECONDS, self._keep_seconds) if fresh else self._keep_seconds
        return anyio.current_time() - read.at >= allowed

    async def _read(self, queue: QueueRef) -> _Read:
        failure = ""
        defaults = None
        try:
            with anyio.fail_after(self._read_seconds):
                defaults = await self._ask(queue)
        except TimeoutError:
            failure = f"the resource config of {queue} did not come in time"
        except Unavailable as error:
            failure = str(error)
        except (RequestRefused, *_MALFORMED) as error:
            if queue not in self._told:
                self._told.add(queue)
                reason = str(error) if isinstance(error, RequestRefused) else "an odd answer"
                log.warning(
                    "the queue's resource config cannot be read; rules take all of an item's "
                    "arguments as its own",
                    queue=str(queue),
                    reason=reason,
                )
        return _Read(anyio.current_time(), defaults, failure)

    async def _ask(self, queue: QueueRef) -> QueueDefaults:
        answer = await self._transport.execute(
            QUEUE_METADATA,
            {"projectName": queue.project, "entityName": queue.entity, "runQueue": queue.name},
        )
        config_id = answer["project"]["runQueue"]["defaultResourceConfigID"]
        answer = await self._transport.execute(
            RESOURCE_CONFIG, {"entityName": queue.entity, "id": config_id}
        )
        return decode_resource_config(answer["entity"]["defaultResourceConfig"])

    def _keep(self, queue: QueueRef, read: _Read) -> None:
        self._reads.pop(queue, None)
        self._reads[queue] = read
        while len(self._reads) > self._max_queues:
            oldest = next(iter(self._reads))
            del self._reads[oldest]
            self._locks.pop(oldest, None)  # gone already if it was being read when last let go
            self._told.discard(oldest)
