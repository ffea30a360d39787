"""Logins for images, renewed while a run waits: a real registry lets the node in only with them."""

import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster
from kube_backend import KubernetesBackend

from launch_async.domain.image import ImageRef
from launch_async.domain.run import RunEnd, RunHandle
from launch_async.domain.secret import Secret
from launch_async.ports.images import RegistryLogin
from launch_async.testing import Play, order_for
from launch_async.testing.backends import end_of
from registry_servers import Registries

pytestmark = pytest.mark.anyio

IMAGE = "kube-refresh/tiny:1"


class ExpiringLogins:
    """A token that the registry no longer takes, until it is renewed."""

    def __init__(self, registries: Registries) -> None:
        self._registry = registries.login
        self.renewed = False
        self.asked = 0

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        self.asked += 1
        if image.host != self._registry.host:
            return None
        password = self._registry.password if self.renewed else "expired"
        return RegistryLogin(
            username=self._registry.username or "", password=Secret(password or "")
        )


@pytest.fixture
def private_image(tiny_image: str, registries: Registries, tmp_path: Path) -> str:
    """The tiny image in the registry that wants a login, and not on the node."""
    registry = registries.login
    name = f"{registry.host}/{IMAGE}"
    docker = ["docker", "--config", str(tmp_path / "docker")]
    login = [*docker, "login", "-u", registry.username or "", "--password-stdin", registry.host]
    subprocess.run(
        login, input=registry.password, text=True, check=True, capture_output=True, timeout=60
    )
    for command in (["docker", "tag", tiny_image, name], [*docker, "push", "-q", name]):
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return name


@pytest.fixture
def backend(
    cluster: Cluster, proxy: ApiProxy, private_image: str, namespace: str, tmp_path: Path
) -> KubernetesBackend:
    return KubernetesBackend(cluster, proxy, private_image, namespace, tmp_path)


SUSPENDED: dict[str, Any] = {
    "spec": {
        "suspend": True,
        # Another test may have left the image on the node.
        "template": {"spec": {"containers": [{"imagePullPolicy": "Always"}]}},
    }
}


async def let_go(backend: KubernetesBackend, handle: RunHandle) -> None:
    path = f"/apis/batch/v1/namespaces/{backend.namespace}/jobs/{handle.data['name']}"
    change = {"spec": {"suspend": False}}
    await anyio.to_thread.run_sync(
        lambda: backend.cluster.call("PATCH", path, change, kind="merge-patch+json")
    )


async def renewals(backend: KubernetesBackend, number: int) -> None:
    """Return when the run's pull Secret was changed so often."""
    with anyio.fail_after(30):
        while backend.proxy.count("patch", "/secrets/.*-pull") < number:
            await anyio.sleep(0.1)


async def test_a_run_that_waits_longer_than_its_token_lasts_gets_a_new_one(
    backend: KubernetesBackend, registries: Registries
) -> None:
    logins = ExpiringLogins(registries)
    async with backend.life(logins=logins, refresh_seconds=0.2) as runner:
        handle = await runner.launch(order_for(backend, Play(), resource_args=SUSPENDED))
        ends: list[RunEnd] = []

        async def follow() -> None:
            ends.append(await end_of(runner, handle))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            logins.renewed = True
            await renewals(backend, 1)
            await let_go(backend, handle)
        [end] = ends
        assert end.clean
        assert backend.proxy.count("patch", "/secrets/.*-pull") == 1
        await runner.remove(handle)


async def test_a_run_of_an_earlier_life_gets_a_login_that_holds(
    backend: KubernetesBackend, registries: Registries
) -> None:
    logins = ExpiringLogins(registries)
    async with backend.life(logins=logins) as runner:
        await runner.launch(order_for(backend, Play(), resource_args=SUSPENDED))
    logins.renewed = True
    async with backend.life(logins=logins) as later:
        [found] = await later.find(backend.identity)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_of, later, found.handle)
            await renewals(backend, 1)
            tasks.cancel_scope.cancel()
        await later.cancel(found.handle, within_seconds=1)
