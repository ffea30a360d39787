"""What people and programs may read of the agent: nothing here changes it."""

from contextlib import aclosing

from aiohttp import web

from launch_async.admin.answers import json_answer, refused, whole
from launch_async.admin.operated import Operated
from launch_async.admin.tasks import tasks_now
from launch_async.domain.errors import LaunchError

SHOWN_ITEMS = 100
MOST_ITEMS = 1_000
LOG_LINES = 100
MOST_LOG_LINES = 10_000
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

    async def explain(self, request: web.Request) -> web.Response:
        """Why an item or a queue is where it is."""
        name = request.match_info["id"]
        explanation = self._agent.explain(name)
        return not_open(name) if explanation is None else json_answer(explanation)

    async def log_tail(self, request: web.Request) -> web.Response:
        """The last `?lines=` of what an item's run printed."""
        wanted = request.match_info["id"]
        count = whole(request, "lines", default=LOG_LINES, most=MOST_LOG_LINES)
        try:
            lines = await self._agent.log_tail(wanted, lines=count)
        except LaunchError as error:
            return refused(str(error), status=502)
        return web.Response(text="".join(f"{line}\n" for line in lines))

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """All that is left of a run's log, as it grows; a reader that is slow slows only itself."""
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        async with aclosing(self._agent.logs(request.match_info["id"])) as pieces:
            async for piece in pieces:
                try:
                    await response.write(piece)
                except ConnectionError:  # the reader left
                    break
        return response

    async def tasks(self, request: web.Request) -> web.Response:
        """What the tasks of the loop wait for; `?name=` is the begin of a name."""
        most = whole(request, "limit", default=SHOWN_TASKS, most=MOST_TASKS)
        return json_answer(tasks_now(name=request.query.get("name", ""), limit=most))


def not_open(item_id: str) -> web.Response:
    """404 that says what it may mean."""
    return refused(
        f"{item_id} is not open at this agent: it still waits in its queue, has ended, or is"
        " another agent's",
        status=404,
    )
