"""A real Kubernetes for tests: scripts/cluster's, or the one that KUBECONFIG names.

Tests of several processes share it. One that stops a part of it, or must have it to itself, asks
for `cluster_alone`; no other test is in its cluster then.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))

from agent_image import load_agent_image
from api_proxy import ApiProxy, api_proxy
from cluster_tools import (
    REMEDY,
    SCRIPT,
    Cluster,
    Kwok,
    NewNamespace,
    find_cluster,
    script,
    sharing,
)
from kube_field import Field, kube_field

POD_SECURITY = "pod-security.kubernetes.io/enforce"
_numbers = itertools.count(1)

Miss = Callable[[str], NoReturn]


@pytest.fixture(scope="session")
def cluster(miss: Miss) -> Cluster:
    with sharing(alone=False):  # a test of another process may have stopped a part of it
        found = find_cluster()
    return found or miss(f"no Kubernetes cluster answers: {REMEDY}")


@pytest.fixture
def cluster_share(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[None]:
    """Whoever uses the cluster holds it, so that it is not stopped under their feet."""
    with sharing(alone="cluster_alone" in request.fixturenames):
        yield


@pytest.fixture
def cluster_alone(cluster: Cluster, cluster_share: None, miss: Miss) -> Cluster:
    """The cluster without other tests in it: its components may be stopped."""
    if not cluster.is_ours:
        miss("only a cluster of scripts/cluster may be stopped: unset KUBECONFIG")
    return cluster


@pytest.fixture
def new_namespace(cluster: Cluster, cluster_share: None) -> Iterator[NewNamespace]:
    """Makes namespaces that go after the test: `new_namespace(pod_security="restricted")`."""
    made: list[str] = []

    def new(*, pod_security: str | None = None) -> str:
        name = f"launch-test-{os.getpid()}-{next(_numbers)}"
        labels = {POD_SECURITY: pod_security} if pod_security else {}
        metadata = {"name": name, "labels": {"launch-async-test": "true", **labels}}
        cluster.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        made.append(name)
        # Without it the API server refuses pods.
        cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
        return name

    yield new
    for name in made:
        # Pods need not be waited for: nobody looks at them any more.
        for pod in cluster.pods(name):
            cluster.delete(f"/api/v1/namespaces/{name}/pods/{pod['metadata']['name']}", grace=1)
        cluster.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def namespace(new_namespace: NewNamespace) -> str:
    """A namespace of the test's own, without any rules for pods."""
    return new_namespace()


@pytest.fixture
def proxy(cluster: Cluster, cluster_share: None) -> Iterator[ApiProxy]:
    """Stands before the API server and breaks what it is told to break."""
    with api_proxy(cluster.access) as serving:
        yield serving


@pytest.fixture(scope="session")
def cluster_image(tiny_image: str, cluster: Cluster) -> str:
    """The tiny image on the node; it need not be pulled, as its tag is not `latest`."""
    return _on_node(tiny_image, cluster)


@pytest.fixture(scope="session")
def cluster_wandb_image(wandb_image: str, cluster: Cluster) -> str:
    """Python with the wandb client, on the node."""
    return _on_node(wandb_image, cluster)


@pytest.fixture(scope="session")
def agent_image(python_image: str, cluster: Cluster) -> str:
    """The agent's own image on the node: git, ssh and `launch-async`."""
    assert python_image == "python:3.11-slim"  # what deploy/Dockerfile begins with
    return load_agent_image(cluster)


@pytest.fixture(scope="session")
def kwok(cluster: Cluster, miss: Miss) -> Kwok:
    if not cluster.is_ours:
        miss("nodes without containers are only added to scripts/cluster's: unset KUBECONFIG")
    with sharing(alone=False):
        made = subprocess.run(
            [SCRIPT, "kwok-up", str(Kwok.nodes)], capture_output=True, text=True, check=False
        )
    if made.returncode:
        miss(f"no nodes without containers: {made.stderr.strip()}")
    return Kwok()


@pytest.fixture(scope="module")
def field(
    cluster: Cluster, kwok: Kwok, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Field]:
    """Where faults strike all of a module's agents."""
    with kube_field(tmp_path_factory.mktemp("field"), cluster, kwok) as made:
        yield made


def _on_node(image: str, cluster: Cluster) -> str:
    name = f"{image.rpartition(':')[0]}:cluster"
    subprocess.run(["docker", "tag", image, name], check=True, capture_output=True)
    with sharing(alone=False):
        script("load", name, seconds=300)
    return name
