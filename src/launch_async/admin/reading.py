"""What people and programs may read of the agent: nothing here changes it."""

from contextlib import aclosing

import msgspec
from aiohttp import web

from launch_async.admin.answers import json_answer, refused, whole
from launch_async.admin.operated import Operated
from launch_async.admin.tasks import tasks_now
from launch_async.domain.errors import LaunchError
from launch_async.ports.status import ItemView

SHOWN_ITEMS = 100
MOST_ITEMS = 10_000
LOG_LINES = 100
MOST_LOG_LINES = 10_000
SHOWN_TASKS = 200
MOST_TASKS = 5_000


class ItemPage(msgspec.Struct, frozen=True):
    """Open items that match a filter, those longest in their phase first."""

    open: int
    matching: int
    items: tuple[ItemView, ...]


class Reading:
    """The handlers."""

    def __init__(self, agent: Operated) -> None:
        self._agent = agent

    async def status(self, request: web.Request) -> web.Response:
        """The agent, its limits and queues, and `?items=` of its items."""
        most = whole(request, "items", default=SHOWN_ITEMS, most=MOST_ITEMS)
        view = self._agent.view(items=most > 0)
        page = _page(view.items, most)
        return json_answer(msgspec.structs.replace(view, items=page.items))

    async def queues(self, _: web.Request) -> web.Response:
        """All queues."""
        return json_answer(self._agent.view(items=False).queues)

    async def items(self, request: web.Request) -> web.Response:
        """Open items, `?queue=`, `?phase=`, `?limit=`."""
        most = whole(request, "limit", default=SHOWN_ITEMS, most=MOST_ITEMS)
        given = request.query
        items = self._agent.view().items
        matching = tuple(
            item
            for item in items
            if given.get("queue", item.queue) == item.queue
            and given.get("phase", item.phase) == item.phase
        )
        page = _page(matching, most)
        return json_answer(msgspec.structs.replace(page, open=len(items)))

    async def item(self, request: web.Request) -> web.Response:
        """One open item."""
        wanted = request.match_info["id"]
        found = next((item for item in self._agent.view().items if item.id == wanted), None)
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
                await response.write(piece)
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


def _page(items: tuple[ItemView, ...], most: int) -> ItemPage:
    oldest = sorted(items, key=lambda item: -item.seconds_in_phase)
    return ItemPage(open=len(items), matching=len(items), items=tuple(oldest[:most]))
