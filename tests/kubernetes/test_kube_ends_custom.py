"""How runs of a kind of the test's own end on a real cluster: its operator is the test."""

import os
from pathlib import Path

import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster, Json, until
from kube_backend import KubernetesBackend
from kube_ends import Ends, object_for_now, run_all

from launch_async.domain.errors import Reason
from launch_async.domain.run import RunHandle, RunState

pytestmark = pytest.mark.anyio

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = f"t{os.getpid()}.launch-async.test"


@pytest.fixture
def backend(
    cluster: Cluster, proxy: ApiProxy, cluster_image: str, namespace: str, tmp_path: Path
) -> KubernetesBackend:
    return KubernetesBackend(cluster, proxy, cluster_image, namespace, tmp_path)


async def test_runs_of_a_kind_that_nobody_knows_end_as_its_operator_says(
    backend: KubernetesBackend,
) -> None:
    async with backend.life() as runner:
        ends = Ends(backend, runner)
        async with object_for_now(ends, CRDS, a_definition()):
            await until(lambda: backend.cluster.find(f"/apis/{GROUP}/v1"))
            cases = (a_training_succeeds, a_training_fails_with_its_pod, a_training_is_deleted)
            assert await run_all(ends, cases) == {}


async def a_training_succeeds(ends: Ends) -> None:
    handle = await ends.launch_args("succeeds", a_training())
    await ends.said(handle, lambda status: status.state is RunState.STARTING)
    await operate(ends, handle, "Running")
    await ends.running(handle)
    await operate(ends, handle, "Running", "Succeeded")
    assert (await ends.end(handle)).clean


async def a_training_fails_with_its_pod(ends: Ends) -> None:
    handle = await ends.launch_args("fails", a_training(), "sleep 1; exit 3")
    template = (await ends.call("GET", training(ends, handle)))["spec"]["template"]
    meta = {"name": f"{handle.data['name']}-0", "labels": template["metadata"]["labels"]}
    body = {"metadata": meta, "spec": template["spec"]}
    await ends.call("POST", f"/api/v1/namespaces/{ends.namespace}/pods", body)
    await ends.running(handle)
    pods = f"/api/v1/namespaces/{ends.namespace}/pods/{meta['name']}"
    await until(lambda: ends.cluster.get(pods)["status"].get("phase") == "Failed")
    await operate(ends, handle, "Running", "Failed")
    end = await ends.end(handle)
    assert (end.exit_code, end.reason) == (3, None)


async def a_training_is_deleted(ends: Ends) -> None:
    handle = await ends.launch_args("deleted", a_training())
    await operate(ends, handle, "Running")

    async def delete() -> None:
        await ends.delete(training(ends, handle))

    end = await ends.end(handle, once_it_runs=delete)
    assert end.reason is Reason.VANISHED
    assert "deleted by somebody else" in end.detail


async def operate(ends: Ends, handle: RunHandle, *conditions: str) -> None:
    said = [{"type": one, "status": "True"} for one in conditions]
    path = f"{training(ends, handle)}/status"
    await ends.merge(path, {"status": {"conditions": said}})


def training(ends: Ends, handle: RunHandle) -> str:
    return f"/apis/{GROUP}/v1/namespaces/{ends.namespace}/trainings/{handle.data['name']}"


def a_training() -> Json:
    spec = {"restartPolicy": "Never", "containers": [{"name": "main"}]}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Training",
        "metadata": {},
        "spec": {"template": {"metadata": {}, "spec": spec}},
    }


def a_definition() -> Json:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version: Json = {"name": "v1", "served": True, "storage": True}
    version |= {"subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}}
    return {
        "metadata": {"name": f"trainings.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "trainings", "singular": "training", "kind": "Training"},
            "versions": [version],
        },
    }
