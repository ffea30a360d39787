"""The Kubernetes runner for the conformance suite: on a real cluster, behind a proxy."""

import os
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import anyio
from api_proxy import ApiProxy
from cluster_tools import Cluster

from launch_async.adapters.runners.kubernetes.clusters import Connect, connector
from launch_async.adapters.runners.kubernetes.runner import KubernetesRunner
from launch_async.domain.run import RunHandle
from launch_async.ports.runner import ImageWork, Work
from launch_async.testing import Play


class Service(Protocol):
    async def serve(self) -> None: ...

    async def close(self) -> None: ...


def connect_to(kubeconfig: Path) -> Connect:
    """With more calls than any test makes."""
    return connector(
        config_file=kubeconfig, context=None, environ=os.environ, calls_per_second=200, burst=200
    )


@asynccontextmanager
async def serving(service: Service) -> AsyncGenerator[None, None]:
    """It serves during the block, and is closed after it."""
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.serve)
            yield
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await service.close()


class KubernetesBackend:
    def __init__(
        self, cluster: Cluster, proxy: ApiProxy, image: str, namespace: str, folder: Path
    ) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.image = image
        self.namespace = namespace
        self.identity = f"test-{uuid4().hex[:8]}"
        self.folder = folder
        self.kubeconfig = proxy.write_kubeconfig(folder / "kubeconfig", namespace=namespace)

    @asynccontextmanager
    async def life(self, **settings: Any) -> AsyncGenerator[KubernetesRunner, None]:
        runner = KubernetesRunner(
            connect=connect_to(self.kubeconfig), folder=self.folder / "kubernetes", **settings
        )
        async with serving(runner):
            yield runner

    def work(self, play: Play) -> Work:
        return self.script(play.shell)

    def script(self, script: str) -> Work:
        return ImageWork(image=self.image, entrypoint=("sh", "-c", script))

    def kill_from_outside(self, handle: RunHandle) -> None:
        selector = f"launch-async/item={handle.data['item']}"
        [pod] = self.cluster.pods(self.namespace, selector)
        [container] = pod["status"]["containerStatuses"]
        kill_container(self.cluster, container["containerID"].removeprefix("containerd://"))

    @asynccontextmanager
    async def cut_off(self) -> AsyncGenerator[None, None]:
        with self.proxy.down():
            yield


def kill_container(cluster: Cluster, container: str) -> None:
    """SIGKILL its program, as the machine's own trouble would."""
    engine = cluster.kubeconfig.parent / "containerd.sock"
    command = ["ctr", "-a", str(engine), "-n", "k8s.io", "tasks", "kill", "-s", "KILL", container]
    subprocess.run(command, check=True, capture_output=True)
