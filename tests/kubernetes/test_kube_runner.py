"""The Kubernetes runner and what real clusters do to Jobs: limits, retries, refusals, deletions."""

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster, has_condition, until
from kube_backend import KubernetesBackend

from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.run import RunHandle, RunStatus, StartCause, Trace
from launch_async.ports.runner import LaunchOrder, Runner
from launch_async.testing import Play, order_for
from launch_async.testing.backends import end_of

pytestmark = pytest.mark.anyio

SOON_SECONDS = 60.0


@pytest.fixture
def backend(
    cluster: Cluster, proxy: ApiProxy, cluster_image: str, namespace: str, tmp_path: Path
) -> KubernetesBackend:
    return KubernetesBackend(cluster, proxy, cluster_image, namespace, tmp_path)


def job(backend: KubernetesBackend, play: Play, **spec: Any) -> LaunchOrder:
    return order_for(backend, play, resource_args={"spec": spec})


async def said(
    runner: Runner, handle: RunHandle, wanted: Callable[[RunStatus], object]
) -> RunStatus:
    """The first status that is as wanted."""
    with anyio.fail_after(SOON_SECONDS):
        async with aclosing(runner.watch(handle)) as statuses:
            async for status in statuses:
                if wanted(status):
                    return status
    raise AssertionError("the watch ended without it")


async def test_all_indexes_of_a_parallel_job_must_be_done(backend: KubernetesBackend) -> None:
    order = job(backend, Play(), completions=3, parallelism=2, completionMode="Indexed")
    async with backend.life() as runner:
        handle = await runner.launch(order)
        assert (await end_of(runner, handle)).clean
    found = backend.cluster.get(f"/apis/batch/v1/namespaces/{backend.namespace}/jobs")
    assert found["items"][0]["status"]["succeeded"] == 3


async def test_a_job_fails_when_its_tries_are_used_up_and_not_before(
    backend: KubernetesBackend,
) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(job(backend, Play(exit_code=5), backoffLimit=1))
        end = await end_of(runner, handle)
    assert end.exit_code == 5
    assert "2 of its pods failed" in end.detail


async def test_memory_beyond_its_limit_is_told(backend: KubernetesBackend) -> None:
    container = {"resources": {"limits": {"memory": "20Mi"}}}
    args = {"spec": {"template": {"spec": {"containers": [container]}}}}
    order = order_for(backend, Play(), resource_args=args)
    eater = backend.script("x=a; while true; do x=$x$x; done")
    async with backend.life() as runner:
        handle = await runner.launch(order_with(order, eater))
        end = await end_of(runner, handle)
    assert end.reason is Reason.OUT_OF_MEMORY


async def test_an_image_that_cannot_be_had_is_told_early(backend: KubernetesBackend) -> None:
    backend.image = "127.0.0.1:9/none:1"
    async with backend.life() as runner:
        handle = await runner.launch(order_for(backend, Play()))
        status = await said(runner, handle, lambda status: status.cause is StartCause.IMAGE)
        await runner.cancel(handle, within_seconds=1)
    assert "127.0.0.1:9/none:1" in status.detail + status.warning


async def test_what_no_node_can_take_is_told_early(backend: KubernetesBackend) -> None:
    container = {"resources": {"limits": {"example.com/gpu": 1}}}
    args = {"spec": {"template": {"spec": {"containers": [container]}}}}
    async with backend.life() as runner:
        handle = await runner.launch(order_for(backend, Play(), resource_args=args))
        status = await said(runner, handle, lambda status: status.warning)
        await runner.cancel(handle, within_seconds=1)
    assert status.cause is StartCause.UNSCHEDULABLE
    assert "example.com/gpu" in status.warning


async def test_pods_that_a_quota_does_not_allow_are_told_in_its_words(
    backend: KubernetesBackend,
) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    path = f"/api/v1/namespaces/{backend.namespace}/resourcequotas"
    backend.cluster.call("POST", path, quota)
    await until(lambda: backend.cluster.get(f"{path}/none")["status"].get("hard"))
    async with backend.life() as runner:
        handle = await runner.launch(order_for(backend, Play()))
        status = await said(runner, handle, lambda status: status.warning)
        await runner.cancel(handle, within_seconds=1)
    assert status.cause is StartCause.REFUSED
    assert "quota" in status.warning


async def test_a_suspended_job_waits_and_is_not_late(backend: KubernetesBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(job(backend, Play(), suspend=True))
        await said(runner, handle, lambda status: status.cause is StartCause.QUEUED)
        path = f"/apis/batch/v1/namespaces/{backend.namespace}/jobs/{handle.data['name']}"
        change = {"spec": {"suspend": False}}
        backend.cluster.call("PATCH", path, change, kind="merge-patch+json")
        assert (await end_of(runner, handle)).clean


async def test_a_field_that_the_cluster_does_not_know_is_a_warning(
    backend: KubernetesBackend,
) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(job(backend, Play(), compleetions=2))
        status = await said(runner, handle, lambda status: status.warning)
        assert (await end_of(runner, handle)).clean
    assert "compleetions" in status.warning


async def test_a_job_that_is_to_go_at_once_stays_until_it_was_reported(
    backend: KubernetesBackend,
) -> None:
    order = job(backend, Play(prints=("done",), exit_code=3), ttlSecondsAfterFinished=0)
    async with backend.life() as runner:
        handle = await runner.launch(order)
        path = f"/apis/batch/v1/namespaces/{backend.namespace}/jobs/{handle.data['name']}"
        await until(lambda: has_condition(backend.cluster.get(path), "Failed"))
    async with backend.life() as later:
        assert (await end_of(later, handle)).exit_code == 3
        assert await later.log_tail(handle, lines=1) == ("done",)
        await later.remove(handle)
        await until(lambda: backend.cluster.find(path) is None)
        assert not await later.find(backend.identity)


async def test_a_job_that_somebody_deletes_has_vanished(backend: KubernetesBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(order_for(backend, Play(prints=("up",), seconds=60)))
        path = f"/apis/batch/v1/namespaces/{backend.namespace}/jobs/{handle.data['name']}"
        backend.cluster.delete(path, propagation="Foreground")
        end = await end_of(runner, handle)
    assert end.reason is Reason.VANISHED
    assert "deleted by somebody else" in end.detail


async def test_a_launch_that_broke_off_before_its_secrets_is_found_and_completed(
    backend: KubernetesBackend,
) -> None:
    order = order_for(backend, Play())
    async with backend.life() as runner:
        with backend.proxy.answer("create", "/secrets", 503), pytest.raises(Unavailable):
            await runner.launch(order)
    async with backend.life() as later:
        [found] = await later.find(backend.identity)
        assert found.trace is Trace.PREPARED
        handle = await later.launch(order)
        assert (await end_of(later, handle)).clean


async def test_each_life_asks_once_whether_what_waits_is_whole_and_not_of_what_it_made(
    backend: KubernetesBackend,
) -> None:
    order = job(backend, Play(), suspend=True)
    async with backend.life() as runner:
        handle = await runner.launch(order)
        for _ in range(3):
            [found] = await runner.find(backend.identity)
            assert found.trace is Trace.ALIVE
    assert backend.proxy.count("patch", "/secrets/") == 0
    async with backend.life() as later:
        for _ in range(3):
            [found] = await later.find(backend.identity)
            assert found.trace is Trace.ALIVE
        assert backend.proxy.count("patch", "/secrets/") == 1
        await later.cancel(handle, within_seconds=1)


async def test_a_kind_that_the_cluster_does_not_have_holds_up_no_search(
    backend: KubernetesBackend,
) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(order_for(backend, Play(seconds=60)))
    missing = ("nothing.example/v1", "Thing")
    async with backend.life(namespaces=[backend.namespace], kinds=[missing]) as later:
        [found] = await later.find(backend.identity)
        assert found.handle == handle
        await later.cancel(handle, within_seconds=1)


async def test_a_namespace_that_is_not_there_is_named(backend: KubernetesBackend) -> None:
    order = order_for(backend, Play(), resource_args={"namespace": "nowhere-at-all"})
    async with backend.life() as runner:
        with pytest.raises(ItemError, match="nowhere-at-all") as wrong:
            await runner.launch(order)
    assert wrong.value.reason is Reason.RESOURCE_ARGS_INVALID


def order_with(order: LaunchOrder, work: Any) -> LaunchOrder:
    return msgspec.structs.replace(order, work=work)
