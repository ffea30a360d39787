"""What a namespace ever held: its Jobs and pods by their items, as a watch beside the agent saw it.

with Audit(cluster, namespace).running() as audit:
    ...
    audit.jobs[label]    # the uid of each Job that was ever made for the item
    audit.pods[label]    # each pod by its uid, as it was last
    audit.gaps           # 0: nothing can have been missed, not even while the API server was away

It goes to the API server itself. An agent that made an object twice, in whatever life, shows here
though nothing of it may be left.
"""

import json
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal
from cluster_tools import Cluster

from launch_async.adapters.runners.kubernetes.names import ITEM_LABEL, label_value

AGAIN_SECONDS = 0.1
WATCH_SECONDS = 60
WATCHES = 2
"""Of Jobs and of pods."""

Json = dict[str, Any]


def label_of(item: str) -> str:
    """The label that objects of this item bear."""
    return label_value(item)


class Audit:
    """Its methods are for other threads than its own."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.jobs: dict[str, set[str]] = defaultdict(set)
        self.pods: dict[str, dict[str, Json]] = defaultdict(dict)
        self.gaps = 0
        """How often it had to begin anew, so that something brief may have been missed."""
        self._cluster = cluster
        self._root = f"namespaces/{namespace}"
        self.on_pod: Callable[[Json], None] | None = None
        """Hears of each pod's changes, in a thread of its own."""
        self._watched: set[str] = set()
        self._news = threading.Condition()

    @contextmanager
    def running(self) -> Iterator["Audit"]:
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self._serving()),
        ):
            yield self

    def wait_until_watching(self) -> None:
        """Return when it sees again, in case the API server was away."""
        assert self.wait_for(lambda: len(self._watched) == WATCHES), "the witness sees nothing"

    def phases(self, item: str) -> list[str]:
        """Of the item's pods, the oldest first."""
        pods = sorted(
            self.pods.get(label_of(item), {}).values(),
            key=lambda pod: pod["metadata"]["creationTimestamp"],
        )
        return [pod["status"].get("phase", "") for pod in pods]

    def running_now(self) -> int:
        """How many pods run."""
        with self._news:
            return sum(
                pod["status"].get("phase") == "Running"
                for pods in self.pods.values()
                for pod in pods.values()
            )

    def wait_for(self, wanted: Callable[[], object], *, within_seconds: float = 60.0) -> bool:
        """Return when it is so, asked at each change; False: it was not in time."""
        with self._news:
            return bool(self._news.wait_for(wanted, timeout=within_seconds))

    @asynccontextmanager
    async def _serving(self) -> AsyncGenerator[None]:
        connector = aiohttp.TCPConnector(ssl=self._cluster.access.tls or False)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SECONDS + 30)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=limits,
                headers=self._cluster.access.headers,
                read_bufsize=2**24,
            ) as session,
            anyio.create_task_group() as tasks,
        ):
            jobs = f"/apis/batch/v1/{self._root}/jobs"
            await tasks.start(self._follow, session, jobs, self._take_job)
            await tasks.start(self._follow, session, f"/api/v1/{self._root}/pods", self._take_pod)
            yield
            tasks.cancel_scope.cancel()

    async def _follow(
        self,
        session: aiohttp.ClientSession,
        path: str,
        take: Callable[[Json], None],
        *,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        version, began = "", False
        while True:
            try:
                if not version:
                    listed = await self._list(session, path)
                    for one in listed["items"]:
                        await self._tell(take, one)
                    version = listed["metadata"]["resourceVersion"]
                    self.gaps += began
                    if not began:
                        began = True
                        task_status.started()
                async with aclosing(self._events(session, path, version)) as events:
                    async for event in events:
                        if event["type"] == "ERROR":
                            version = ""
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            await self._tell(take, event["object"])
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                await anyio.sleep(AGAIN_SECONDS)

    async def _list(self, session: aiohttp.ClientSession, path: str) -> Json:
        async with session.get(self._cluster.access.server + path) as answer:
            answer.raise_for_status()
            listed: Json = await answer.json()
            return listed

    async def _events(
        self, session: aiohttp.ClientSession, path: str, version: str
    ) -> AsyncGenerator[Json]:
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with session.get(self._cluster.access.server + path, params=params) as answer:
            if answer.status == 410:
                yield {"type": "ERROR"}
                return
            answer.raise_for_status()
            self._note(path, watched=True)
            try:
                async for line in answer.content:
                    yield json.loads(line)
            finally:  # the loop may end before a farewell of TLS does
                self._note(path, watched=False)
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()

    def _note(self, path: str, *, watched: bool) -> None:
        with self._news:
            (self._watched.add if watched else self._watched.discard)(path)
            self._news.notify_all()

    async def _tell(self, take: Callable[[Json], None], said: Json) -> None:
        if ITEM_LABEL in said["metadata"].get("labels", {}):
            with self._news:
                take(said)
                self._news.notify_all()
            if self.on_pod is not None and take == self._take_pod:
                await anyio.to_thread.run_sync(self.on_pod, said)

    def _take_job(self, job: Json) -> None:
        self.jobs[job["metadata"]["labels"][ITEM_LABEL]].add(job["metadata"]["uid"])

    def _take_pod(self, pod: Json) -> None:
        meta = pod["metadata"]
        self.pods[meta["labels"][ITEM_LABEL]][meta["uid"]] = pod
