"""The promises of all runners, asked of the one for Kubernetes on a real cluster."""

from pathlib import Path

import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster
from kube_backend import KubernetesBackend

from launch_async.testing import RunnerConformance

pytestmark = pytest.mark.anyio


class TestKubernetesRunner(RunnerConformance):
    @pytest.fixture
    def backend(
        self,
        cluster: Cluster,
        proxy: ApiProxy,
        cluster_image: str,
        namespace: str,
        tmp_path: Path,
    ) -> KubernetesBackend:
        return KubernetesBackend(cluster, proxy, cluster_image, namespace, tmp_path)
