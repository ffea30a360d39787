"""An agent for the admin endpoint: what it shows is set by tests, what it is told is kept."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import anyio
import msgspec

from launch_async.admin.app import serving
from launch_async.admin.connections import IDLE_SECONDS, MAX_CONNECTIONS
from launch_async.admin.operated import Operations
from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret
from launch_async.ports.backends import BackendView
from launch_async.ports.control import Explanation
from launch_async.ports.status import ALL_ITEMS, AgentView, ItemPage, ItemView, LimitView, QueueView

TOKEN = "t0ken" * 8
replace = msgspec.structs.replace


def a_queue(name: str = "q", **changes: object) -> QueueView:
    queue = QueueView(name=name, max_jobs=-1, items=0, polls={"empty": 3}, seconds_since_poll=1.0)
    return replace(queue, **changes)


def a_backend(name: str = "docker", **changes: object) -> BackendView:
    backend = BackendView(
        name=name,
        breaker=0,
        trips=0,
        requests={("get", "2xx"): 3},
        retries=0,
        throttled=0,
        refused=0,
        wait_seconds=0.5,
        in_flight=1,
        places=8,
    )
    return replace(backend, **changes)


def a_view(**changes: object) -> AgentView:
    view = AgentView(
        name="agent-1",
        identity="i",
        state="polling",
        max_jobs=4,
        queues=(a_queue(),),
        items=(),
        launched=0,
        adopted=0,
        ended={},
        poll_seconds=5.0,
        seconds_since_beat=1.0,
        limits=(LimitView(name="jobs", limit=4, used=0),),
    )
    return replace(view, **changes)


def an_item(number: int, **changes: object) -> ItemView:
    item = ItemView(
        id=f"item-{number}",
        queue="q",
        run=f"me/p/run{number}",
        phase="running",
        detail=f"detail {number}",
        seconds_in_phase=float(number),
    )
    return replace(item, **changes)


class OperatedAgent:
    def __init__(self) -> None:
        self.now = a_view()
        self.calls: list[tuple[str, ...]] = []
        self.changes: Sequence[str] | Exception = ("max_jobs: 1 -> 2",)
        self.log: tuple[bytes, ...] = (b"first\n", b"last\n")
        self.log_fault: Exception | None = None
        self.log_held: anyio.Event | None = None
        """Holds the ends of logs back until it is set."""
        self.readers = 0
        self.released = anyio.Event()
        """Holds the followed log open until it is set."""
        self.followers = 0

    def view(self, *, items: int = ALL_ITEMS) -> AgentView:
        self.calls.append(("view", str(items)))
        return replace(self.now, items=self.now.items[:items])

    def items(self, *, queue: str | None, phase: str | None, most: int) -> ItemPage:
        self.calls.append(("items", str(queue), str(phase)))
        return ItemPage(open=7, matching=len(self.now.items), items=self.now.items[:most])

    def item(self, item_id: str) -> ItemView | None:
        return next((item for item in self.now.items if item.id == item_id), None)

    def explain(self, name: str) -> Explanation | None:
        if name not in {"item-1", "q"}:
            return None
        return Explanation(
            subject=name, state="preparing", seconds=1.0, reasons=("builds are busy",), next="build"
        )

    def drain(self, *, timeout_seconds: float | None = None) -> None:
        self.calls.append(("drain", str(timeout_seconds)))

    async def pause(self, queue: str) -> None:
        self._queue("pause", queue)

    async def resume(self, queue: str) -> None:
        self._queue("resume", queue)

    def _queue(self, verb: str, queue: str) -> None:
        if queue != "q":
            raise ConfigError(f"no queue {queue}")
        self.calls.append((verb, queue))

    async def cancel(self, item_id: str) -> bool:
        self.calls.append(("cancel", item_id))
        return item_id == "item-1"

    async def reload(self) -> Sequence[str]:
        if isinstance(self.changes, Exception):
            raise self.changes
        return self.changes

    async def log_tail(self, item_id: str, *, lines: int) -> tuple[str, ...]:
        if self.log_fault is not None:
            raise self.log_fault
        self.readers += 1
        if self.log_held is not None:
            await self.log_held.wait()
        return () if not self.log else tuple(f"{item_id} {number}" for number in range(lines))

    async def logs(self, item_id: str) -> AsyncGenerator[bytes, None]:
        self.followers += 1
        try:
            if self.log_fault is not None:
                raise self.log_fault
            for piece in self.log:
                yield piece
            await self.released.wait()
        finally:
            self.followers -= 1


@asynccontextmanager
async def endpoint(
    agent: OperatedAgent,
    *,
    token: str | None = TOKEN,
    host: str = "127.0.0.1",
    max_connections: int = MAX_CONNECTIONS,
    idle_seconds: float = IDLE_SECONDS,
    **given: object,
) -> AsyncGenerator[aiohttp.ClientSession]:
    """A client of a served endpoint; it sends the right token."""
    levels: list[str] = []
    operations = Operations(
        agent=agent,
        token=None if token is None else Secret(token),
        set_log_level=levels.append,
    )
    operations = replace(operations, **given)
    async with (
        serving(
            operations,
            host=host,
            port=0,
            max_connections=max_connections,
            idle_seconds=idle_seconds,
        ) as url,
        aiohttp.ClientSession(
            base_url=url.replace("0.0.0.0", "127.0.0.1"),  # noqa: S104 - where it listened
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=aiohttp.ClientTimeout(total=20),
        ) as session,
    ):
        yield session


def address(session: aiohttp.ClientSession) -> tuple[str, int]:
    """Where the endpoint of this client listens."""
    host, _, port = str(session._base_url).removeprefix("http://").rstrip("/").rpartition(":")
    return host, int(port)


async def get(session: aiohttp.ClientSession, path: str, **given: str) -> tuple[int, str]:
    async with session.get(path, headers=given) as response:
        return response.status, await response.text()


async def post(session: aiohttp.ClientSession, path: str, body: object = None) -> tuple[int, str]:
    async with session.post(path, json=body) as response:
        return response.status, await response.text()
