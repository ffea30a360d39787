"""Runs that a test ends in all ways a cluster knows, many at once, and what is done to them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from cluster_tools import Cluster, Json, Kwok, Refused, until
from kube_backend import KubernetesBackend

from launch_async.domain.run import RunEnd, RunHandle, RunState, RunStatus
from launch_async.ports.runner import ImageWork, Runner
from launch_async.testing import Play, order_for

WITHIN_SECONDS = 100.0
"""Many pods begin at once on two cores, and some things take the cluster half a minute."""


class Ends:
    """One runner in one namespace, and the hands of everybody else."""

    def __init__(self, backend: KubernetesBackend, runner: Runner) -> None:
        self.cluster: Cluster = backend.cluster
        self.namespace = backend.namespace
        self.image = backend.image
        self.folder = backend.folder
        self.runner = runner
        self._backend = backend

    async def launch(
        self,
        name: str,
        script: str = "exec sleep 600",
        *,
        spec: Mapping[str, Any] | None = None,
        pod: Mapping[str, Any] | None = None,
        container: Mapping[str, Any] | None = None,
        image: str = "",
    ) -> RunHandle:
        """A Job on the real node; `pod` and `container` have more of its pods' spec."""
        containers = [{"name": "main", **(container or {})}]
        pod_spec = {"terminationGracePeriodSeconds": 1, "containers": containers, **(pod or {})}
        whole = {"backoffLimit": 0, **(spec or {}), "template": {"spec": pod_spec}}
        return await self.launch_args(name, {"spec": whole}, script, image=image)

    async def launch_fake(
        self, name: str, play: Mapping[str, str], *, pod: Mapping[str, Any] | None = None
    ) -> RunHandle:
        """A Job on nodes without containers."""
        pod_spec = {**Kwok().pod(), "containers": [{"name": "main"}], **(pod or {})}
        template = {"metadata": {"annotations": dict(play)}, "spec": pod_spec}
        return await self.launch_args(name, {"spec": {"backoffLimit": 0, "template": template}})

    async def launch_args(
        self,
        name: str,
        args: Mapping[str, Any],
        script: str = "exec sleep 600",
        *,
        image: str = "",
    ) -> RunHandle:
        """Any object, whose program is the script."""
        order = order_for(self._backend, Play(), item_id=name, resource_args=args)
        work = ImageWork(image=image or self.image, entrypoint=("sh", "-c", script))
        return await self.runner.launch(msgspec.structs.replace(order, work=work))

    async def said(self, handle: RunHandle, wanted: Callable[[RunStatus], object]) -> RunStatus:
        """The first status that is as wanted."""
        last: RunStatus | None = None
        with anyio.move_on_after(WITHIN_SECONDS):
            async with aclosing(self.runner.watch(handle)) as statuses:
                async for status in statuses:
                    last = status
                    if wanted(status):
                        return status
        raise AssertionError(f"it was last {last}")

    async def running(self, handle: RunHandle) -> None:
        await self.said(handle, lambda status: status.state is RunState.RUNNING)

    async def end(
        self, handle: RunHandle, *, once_it_runs: Callable[[], Awaitable[None]] | None = None
    ) -> RunEnd:
        """How it ends, and before that, what somebody does to it."""
        act = once_it_runs
        with anyio.fail_after(WITHIN_SECONDS):
            async with aclosing(self.runner.watch(handle)) as statuses:
                async for status in statuses:
                    if status.end is not None:
                        return status.end
                    if status.state is RunState.RUNNING and act is not None:
                        await act()
                        act = None
        raise AssertionError("the watch ended without an end")

    async def call(self, method: str, path: str, body: Any = None, *, kind: str = "json") -> Any:
        """Call the API server as somebody else does."""
        return await anyio.to_thread.run_sync(
            partial(self.cluster.call, method, path, body, kind=kind)
        )

    async def merge(self, path: str, change: Json) -> Any:
        return await self.call("PATCH", path, change, kind="merge-patch+json")

    async def delete(self, path: str, **options: Any) -> None:
        await anyio.to_thread.run_sync(partial(self.cluster.delete, path, **options))

    async def kubectl(self, *words: str) -> None:
        await anyio.to_thread.run_sync(
            partial(self.cluster.kubectl, *words, namespace=self.namespace)
        )

    def job(self, handle: RunHandle) -> str:
        """The path of its Job."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{handle.data['name']}"

    async def pods(self, handle: RunHandle) -> Sequence[Json]:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        selector = f"labelSelector=launch-async/item={handle.data['item']}"
        found: Sequence[Json] = (await self.call("GET", f"{path}?{selector}"))["items"]
        return found

    async def pod(self, handle: RunHandle) -> str:
        """The path of its only pod."""
        [pod] = await self.pods(handle)
        return f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"

    async def evict(self, handle: RunHandle) -> None:
        """As who drains a node does."""
        path = await self.pod(handle)
        meta = {"name": path.rpartition("/")[2], "namespace": self.namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        await self.call("POST", f"{path}/eviction", body)


Case = Callable[[Ends], Any]


async def run_all(ends: Ends, cases: Sequence[Case]) -> Mapping[str, str]:
    """Run them at once; what went wrong, by the case's name."""
    wrong: dict[str, str] = {}

    async def run(case: Case) -> None:
        try:
            await case(ends)
        except Exception as error:  # noqa: BLE001 - it must not hide how the others go
            wrong[case.__name__] = f"{type(error).__name__}: {error}"

    async with anyio.create_task_group() as tasks:
        for case in cases:
            tasks.start_soon(run, case, name=case.__name__)
    return wrong


@asynccontextmanager
async def object_for_now(
    ends: Ends, path: str, body: Mapping[str, Any]
) -> AsyncGenerator[str, None]:
    """Something outside of the test's namespace, gone after the block; its path."""
    name = body["metadata"]["name"]
    await ends.call("POST", path, body)
    try:
        yield f"{path}/{name}"
    finally:
        with anyio.CancelScope(shield=True):
            await ends.delete(f"{path}/{name}")


async def refused_by(ends: Ends, path: str, body: Mapping[str, Any], words: str) -> None:
    """Return once the API server refuses such an object with these words."""

    def look() -> bool:
        try:
            ends.cluster.call("POST", f"{path}?dryRun=All", body)
        except Refused as error:
            return words in str(error)
        return False

    await until(look)
