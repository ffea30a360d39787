"""What runs beside a run on a real cluster, made and waited for by the runner."""

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster, until
from kube_backend import KubernetesBackend

from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.run import Trace
from launch_async.ports.runner import LaunchOrder
from launch_async.testing import Play, order_for

pytestmark = pytest.mark.anyio

READY = {"exec": {"command": ["test", "-f", "/tmp/ready"]}}  # noqa: S108 - in the pod


@pytest.fixture
def backend(
    cluster: Cluster, proxy: ApiProxy, cluster_image: str, namespace: str, tmp_path: Path
) -> KubernetesBackend:
    return KubernetesBackend(cluster, proxy, cluster_image, namespace, tmp_path)


def database(backend: KubernetesBackend, name: str = "db", *, ready: bool = True) -> dict[str, Any]:
    """A Deployment that is ready a while after it has begun, or never."""
    script = f"sleep 1; {'touch /tmp/ready;' if ready else ''} sleep 300"
    container = {
        "name": "db",
        "image": backend.image,
        "command": ["sh", "-c", script],
        "readinessProbe": {**READY, "periodSeconds": 1},
    }
    pod = {"containers": [container], "terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }


def order(backend: KubernetesBackend, *services: dict[str, Any], **args: Any) -> LaunchOrder:
    made = order_for(backend, Play(), resource_args=args)
    return msgspec.structs.replace(made, services=services)


def deployments(backend: KubernetesBackend) -> list[dict[str, Any]]:
    path = f"/apis/apps/v1/namespaces/{backend.namespace}/deployments"
    return backend.cluster.get(path)["items"]


def jobs(backend: KubernetesBackend) -> list[dict[str, Any]]:
    return backend.cluster.get(f"/apis/batch/v1/namespaces/{backend.namespace}/jobs")["items"]


async def test_a_run_whose_service_is_not_ready_in_time_fails_and_leaves_nothing(
    backend: KubernetesBackend,
) -> None:
    slow = order(backend, database(backend, ready=False), wait_timeout=4)
    async with backend.life() as runner:
        with pytest.raises(ItemError, match=r"db.*not ready within 4 s.*0 of 1 pods") as failed:
            await runner.launch(slow)
        assert failed.value.reason is Reason.LAUNCH_FAILED
        await until(lambda: not jobs(backend) and not deployments(backend))
        assert not await runner.find(backend.identity)


async def test_nobody_waits_where_the_config_says_so(backend: KubernetesBackend) -> None:
    slow = order(backend, database(backend, ready=False), wait_for_ready=False)
    async with backend.life() as runner:
        handle = await runner.launch(slow)
        [db] = deployments(backend)
        assert not db["status"].get("readyReplicas")
        await runner.remove(handle)
    await until(lambda: not deployments(backend))


async def test_a_launch_that_was_killed_among_services_is_completed_by_the_next_life(
    backend: KubernetesBackend,
) -> None:
    asked = order(backend, database(backend), database(backend, "cache"))
    async with backend.life() as runner:
        with backend.proxy.answer("create", "/deployments", 503), pytest.raises(Unavailable):
            await runner.launch(asked)
    async with backend.life() as later:
        [found] = await later.find(backend.identity)
        assert found.trace is Trace.PREPARED
        first = await later.launch(asked)
        again = await later.launch(asked)
        assert first == again
        assert len(deployments(backend)) == 2
        [found] = await later.find(backend.identity)
        assert found.trace is Trace.ALIVE
        await later.cancel(first, within_seconds=1)
    await until(lambda: not deployments(backend))


async def test_a_stop_while_services_are_waited_for_leaves_nothing(
    backend: KubernetesBackend,
) -> None:
    slow = order(backend, database(backend, ready=False))
    async with backend.life() as runner:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.launch, slow)
            await until(lambda: deployments(backend))
            tasks.cancel_scope.cancel()
        await until(lambda: not jobs(backend) and not deployments(backend))


async def test_what_has_a_services_name_and_is_not_its_own_is_in_the_way(
    backend: KubernetesBackend,
) -> None:
    backend.cluster.apply(database(backend), backend.namespace)
    async with backend.life() as runner:
        with pytest.raises(ItemError, match=r"Deployment db .* in the way"):
            await runner.launch(order(backend, database(backend)))
        await until(lambda: not jobs(backend))
    assert len(deployments(backend)) == 1


async def test_a_misspelt_field_is_refused_with_its_path_by_the_rehearsal(
    backend: KubernetesBackend,
) -> None:
    wrong = database(backend)
    wrong["spec"]["template"]["spec"]["containers"][0]["comand"] = ["sh"]
    async with backend.life() as runner:
        assert not await runner.rehearse(order(backend, database(backend)))
        with pytest.raises(ItemError, match=r"spec\.template\.spec\.containers\[0\]\.comand"):
            await runner.rehearse(order(backend, wrong))
        with pytest.raises(ItemError, match=r"spec\.compleetions") as refused:
            await runner.rehearse(order(backend, spec={"compleetions": 2}))
        assert refused.value.reason is Reason.RESOURCE_ARGS_INVALID
    assert not jobs(backend)
    assert not deployments(backend)


async def test_a_secret_that_is_refused_leaves_no_job_that_waits_for_it(
    backend: KubernetesBackend,
) -> None:
    with backend.proxy.answer("create", "/secrets", 403):
        async with backend.life() as runner:
            with pytest.raises(ItemError, match="cannot give the run its keys"):
                await runner.launch(order(backend))
    await until(lambda: not jobs(backend))
