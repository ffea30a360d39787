"""Kinds: asked of the API server, so that no plural is guessed and no wrong name goes further."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from cluster_tools import Cluster
from kube_site import KubeSite, answer, kube_site, status, text

from launch_async.adapters.runners.kubernetes.kinds import Kind, Kinds
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.wire.kubernetes.cluster import KubeCluster

pytestmark = pytest.mark.anyio

CORE = [
    {"name": "pods", "kind": "Pod", "namespaced": True},
    {"name": "pods/log", "kind": "Pod", "namespaced": True},
    {"name": "pods/eviction", "kind": "Eviction", "namespaced": True},
    {"name": "nodes", "kind": "Node", "namespaced": False},
]
TRAINING = [{"name": "mpijobs", "kind": "MPIJob", "namespaced": True}]
GROUPS = [
    {"name": "batch", "versions": [{"groupVersion": "batch/v1"}]},
    {"name": "kubeflow.org", "versions": [{"groupVersion": "kubeflow.org/v1"}]},
]


@pytest.fixture
async def site() -> AsyncGenerator[KubeSite]:
    async with kube_site() as site:
        site.on("GET", "/api/v1", answer({"resources": CORE}))
        site.on("GET", "/apis/kubeflow.org/v1", answer({"resources": TRAINING}))
        site.on("GET", "/apis", answer({"groups": GROUPS}))
        yield site


@pytest.fixture
async def kube(site: KubeSite, tmp_path: Path) -> AsyncGenerator[KubeCluster]:
    path = site.kubeconfig(tmp_path / "config")
    kube = KubeCluster(config_file=path, environ={}, name="the gpu cluster")
    try:
        yield kube
    finally:
        await kube.close()


async def missing(kinds: Kinds, api_version: str, kind: str) -> str:
    with pytest.raises(ItemError) as caught:
        await kinds.find(api_version, kind)
    assert caught.value.reason is Reason.RESOURCE_ARGS_INVALID
    return str(caught.value)


async def test_a_kind_is_found_with_its_plural_and_scope(kube: KubeCluster):
    kinds = Kinds(kube)
    pod = await kinds.find("v1", "Pod")
    assert pod == Kind(api_version="v1", kind="Pod", plural="pods", namespaced=True)
    assert not (await kinds.find("v1", "Node")).namespaced
    assert (await kinds.find("kubeflow.org/v1", "MPIJob")).plural == "mpijobs"


async def test_many_who_look_for_kinds_ask_once(site: KubeSite, kube: KubeCluster):
    kinds = Kinds(kube)
    async with anyio.create_task_group() as tasks:
        for kind in ["Pod", "Node"] * 10:
            tasks.start_soon(kinds.find, "v1", kind)
    assert site.asked == ["GET /api/v1"]


async def test_a_kind_that_is_missing_is_looked_for_again_after_a_while(
    site: KubeSite, kube: KubeCluster
):
    kinds = Kinds(kube, refresh_seconds=0.3)
    await missing(kinds, "kubeflow.org/v1", "PyTorchJob")
    installed = [*TRAINING, {"name": "pytorchjobs", "kind": "PyTorchJob", "namespaced": True}]
    site.on("GET", "/apis/kubeflow.org/v1", answer({"resources": installed}))
    await missing(kinds, "kubeflow.org/v1", "PyTorchJob")
    assert len(site.asked) == 1
    await anyio.sleep(0.35)
    assert (await kinds.find("kubeflow.org/v1", "PyTorchJob")).plural == "pytorchjobs"


@pytest.mark.parametrize(
    ("api_version", "kind", "near"),
    [
        ("kubeflow.org/v1", "MPIJobs", "near it: MPIJob"),
        ("kubeflow.org/v1beta1", "MPIJob", "near it: kubeflow.org/v1"),
        ("kubflow.org/v1", "MPIJob", "near it: kubeflow.org/v1"),
        ("v1", "Eviction", "has no kind Eviction in v1."),
    ],
)
async def test_an_unknown_kind_is_told_with_what_is_near_it(
    kube: KubeCluster, api_version: str, kind: str, near: str
):
    said = await missing(Kinds(kube), api_version, kind)
    assert f"cluster the gpu cluster has no kind {kind} in {api_version}" in said
    assert near in said


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("../v1", "Pod"),
        ("v1/namespaces/kube-system/secrets", "Pod"),
        ("apps/v1/../../x", "Pod"),
        ("v1", "../secrets"),
        ("", ""),
        ("v1?x=y", "Pod"),
        ("v1\n", "Pod"),
    ],
)
async def test_what_cannot_be_a_kind_is_not_asked_for(
    site: KubeSite, kube: KubeCluster, api_version: str, kind: str
):
    assert "cannot be names of a kind" in await missing(Kinds(kube), api_version, kind)
    assert site.asked == []


async def test_a_cluster_that_does_not_say_is_no_items_fault(site: KubeSite, kube: KubeCluster):
    kinds = Kinds(kube)
    for said in (status(403, "Forbidden", "no discovery for you"), text(200, "<html>")):
        site.on("GET", "/api/v1", said)
        with pytest.raises(Unavailable):
            await kinds.find("v1", "Pod")
    site.on("GET", "/api/v1", answer({"resources": CORE}))
    await kinds.find("v1", "Pod")  # it was not taken for an empty list


def test_paths_lead_where_they_say():
    pod = Kind(api_version="v1", kind="Pod", plural="pods", namespaced=True)
    job = Kind(api_version="batch/v1", kind="Job", plural="jobs", namespaced=True)
    node = Kind(api_version="v1", kind="Node", plural="nodes", namespaced=False)
    assert pod.path("n", "p") == "/api/v1/namespaces/n/pods/p"
    assert job.path("n") == "/apis/batch/v1/namespaces/n/jobs"
    assert job.path(None) == "/apis/batch/v1/jobs"
    assert node.path("n", "x") == "/api/v1/nodes/x"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "a\nb", "ä"])
def test_a_name_is_never_a_path_of_something_else(name: str):
    pod = Kind(api_version="v1", kind="Pod", plural="pods", namespaced=True)
    cases: list[tuple[Any, ...]] = [("n", name), (name,), (name, "p")]
    for words in cases:
        with pytest.raises(ItemError, match="cannot be the name"):
            pod.path(*words)


async def test_the_kinds_of_a_real_server_are_found(cluster: Cluster, cluster_share: None):
    kube = KubeCluster(config_file=cluster.kubeconfig, environ={})
    kinds = Kinds(kube)
    try:
        job = await kinds.find("batch/v1", "Job")
        assert job.path("n") == "/apis/batch/v1/namespaces/n/jobs"
        assert (await kinds.find("v1", "Pod")).plural == "pods"
        assert not (await kinds.find("v1", "Namespace")).namespaced
        assert (await kinds.find("networking.k8s.io/v1", "Ingress")).plural == "ingresses"
        assert "near it: Job" in await missing(kinds, "batch/v1", "Jobs")
        assert "near it: batch/v1" in await missing(kinds, "batch/v2", "Job")
    finally:
        await kube.close()
