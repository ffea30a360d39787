"""What may be changed over HTTP, by who knows the token. Each change may be repeated."""

from collections.abc import Awaitable, Callable

import msgspec
import structlog
from aiohttp import web

from launch_async.admin.access import Handler
from launch_async.admin.answers import json_answer, refused
from launch_async.admin.operated import Operations
from launch_async.admin.reading import not_open
from launch_async.config.model import Seconds
from launch_async.domain.errors import ConfigError

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class DrainOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/drain`; none at all is one without a timeout."""

    timeout_seconds: Seconds | None = None


class LogLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/loglevel`."""

    level: str


class Changing:
    """The handlers."""

    def __init__(self, operations: Operations) -> None:
        self._agent = operations.agent
        self._set_log_level = operations.set_log_level

    async def drain(self, request: web.Request) -> web.Response:
        """Begin to stop; answered before the agent has."""
        try:
            order = msgspec.json.decode(await request.read() or b"{}", type=DrainOrder)
        except msgspec.DecodeError as error:
            return refused(str(error), status=422)
        self._agent.drain(timeout_seconds=order.timeout_seconds)
        answer = {"draining": True, "timeout_seconds": order.timeout_seconds}
        return json_answer(answer, status=202)

    def of_queue(self, change: Callable[[str], Awaitable[None]], done: str) -> Handler:
        """Pause or resume the queue of the path."""

        async def handle(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            try:
                await change(name)
            except ConfigError as error:
                return refused(str(error), status=404)
            return json_answer({"queue": name, done: True})

        return handle

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop an item."""
        wanted = request.match_info["id"]
        if not await self._agent.cancel(wanted):
            return not_open(wanted)
        return json_answer({"item": wanted, "cancelling": True}, status=202)

    async def reload(self, _: web.Request) -> web.Response:
        """Read the configuration anew."""
        try:
            changes = await self._agent.reload()
        except ConfigError as error:
            return refused(str(error), status=422)
        return json_answer({"changes": changes})

    async def log_level(self, request: web.Request) -> web.Response:
        """Log more or less from now on."""
        try:
            wanted = msgspec.json.decode(await request.read(), type=LogLevel)
            self._set_log_level(wanted.level)
        except (msgspec.DecodeError, ConfigError) as error:
            return refused(str(error), status=422)
        log.info("log level changed by hand", level=wanted.level)
        return json_answer({"level": wanted.level})
