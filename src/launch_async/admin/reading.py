"""What people and programs may read of the agent: nothing here changes it."""

from contextlib import aclosing

import anyio
from aiohttp import web

from launch_async.admin.access import hang_up
from launch_async.admin.answers import json_answer, refused, whole
from launch_async.admin.operated import Operated
from launch_async.admin.tasks import tasks_now
from launch_async.domain.errors import LaunchError

SHOWN_ITEMS = 100
MOST_ITEMS = 1_000
LOG_LINES = 100
MOST_LOG_LINES = 10_000
STALLED_SECONDS = 300.0
"""For one piece of a followed log."""
SHOWN_TASKS = 200
MOST_TASKS = 5_000


class Reading:
    """The handlers."""

    def __init__(self, agent: Operated) -> None:
        self._agent = agent

    async def status(self, request: web.Request) -> web.Response:
        """The agent, its limits and queues, and `?items=` of its items."""
        most = whole(request, "items", default=SHOWN_ITEMS, most=MOST_ITEMS)
        return json_answer(self._agent.view(items=most))

    async def queues(self, _: web.Request) -> web.Response:
        """All queues."""
        return json_answer(self._agent.view(items=0).queues)

    async def items(self, request: web.Request) -> web.Response:
        """Open items, `?queue=`, `?phase=`, `?limit=`."""
        most = whole(request, "limit", default=SHOWN_ITEMS, most=MOST_ITEMS)
        queue, phase = request.query.get("queue"), request.query.get("phase")
        return json_answer(self._agent.items(queue=queue, phase=phase, most=most))

    async def item(self, request: web.Request) -> web.Response:
        """One open item."""
        wanted = request.match_info["id"]
        found = self._agent.item(wanted)
        return not_open(wanted) if found is None else json_answer(found)

    async def explain_item(self, request: web.Request) -> web.Response:
        """Why an item is where it is."""
        wanted = request.match_info["id"]
        explanation = self._agent.explain(wanted)
        return not_open(wanted) if explanation is None else json_answer(explanation)

    async def explain_queue(self, request: web.Request) -> web.Response:
        """Why a queue is as it is."""
        name = request.match_info["name"]
        explanation = self._agent.explain(name)
        if explanation is not None:
            return json_answer(explanation)
        polled = ", ".join(queue.name for queue in self._agent.view(items=0).queues)
        return refused(f"this agent does not poll a queue {name!r}; it polls {polled}", status=404)

    async def log_tail(self, request: web.Request) -> web.Response:
        """The last `?lines=` of what an item's run printed."""
        wanted = request.match_info["id"]
        count = whole(request, "lines", default=LOG_LINES, most=MOST_LOG_LINES)
        if self._agent.item(wanted) is None:
            return not_open(wanted)
        lines = await self._agent.log_tail(wanted, lines=count)
        return web.Response(text="".join(f"{line}\n" for line in lines))

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """All that is left of a run's log, as it grows; a reader that is slow slows only itself,
        and one that reads nothing at all loses its place.
        """
        wanted = request.match_info["id"]
        if self._agent.item(wanted) is None:
            return not_open(wanted)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        try:
            async with aclosing(self._agent.logs(wanted)) as pieces:
                async for piece in pieces:
                    if not await _written(piece, response, request):
                        return response
        except LaunchError as error:  # the answer has begun: it is too late for a refusal
            await _written(
                f"launch-async: the log ends here: {error}\n".encode(), response, request
            )
        return response

    async def tasks(self, request: web.Request) -> web.Response:
        """What the tasks of the loop wait for; `?name=` is the begin of a name."""
        most = whole(request, "limit", default=SHOWN_TASKS, most=MOST_TASKS)
        return json_answer(tasks_now(name=request.query.get("name", ""), limit=most))


async def _written(piece: bytes, response: web.StreamResponse, request: web.Request) -> bool:
    """Whether the reader is still there."""
    try:
        with anyio.fail_after(STALLED_SECONDS):
            await response.write(piece)
    except ConnectionError:
        return False
    except TimeoutError:
        hang_up(request)
        return False
    return True


def not_open(item_id: str) -> web.Response:
    """404 that says what it may mean."""
    return refused(
        f"{item_id} is not open at this agent: it still waits in its queue, has ended, or is"
        " another agent's",
        status=404,
    )
