"""An item with additional services, from its push to its finished run, its agent killed between."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster_tools import Cluster, wait_until
from kube_fleet import TRAIN, job_args, kube_fleet

pytestmark = pytest.mark.acceptance

READY = "/tmp/ready"  # noqa: S108 - in the pod
ENDED = {"FINISHED", "FAILED", "STOPPED"}


def database(image: str) -> dict[str, Any]:
    """A Deployment that is ready once a file is there that the test makes."""
    container = {
        "image": image,
        "command": ["sh", "-c", 'test -n "$WANDB_API_KEY" && sleep 300'],
        "readinessProbe": {"exec": {"command": ["test", "-f", READY]}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "db-${run_id}"},
        "spec": {
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "db-${run_id}"},
    "spec": {"selector": {"app": "db"}, "ports": [{"port": 6379}]},
}


def test_services_are_ready_before_the_run_and_gone_after_it_though_the_agent_was_killed(
    cluster: Cluster,
    namespace: str,
    *,
    cluster_image: str,
    cluster_wandb_image: str,
    tmp_path: Path,
) -> None:
    def pods(selector: str) -> list[dict[str, Any]]:
        return cluster.pods(namespace, selector)

    def running(selector: str) -> bool:
        return [pod["status"]["phase"] for pod in pods(selector)] == ["Running"]

    with kube_fleet(tmp_path / "fleet", cluster) as fleet:
        queue = fleet.make_kube_queue(namespace, job_args(namespace))
        config = fleet.config(namespace, tmp_path / "state", name="killed-agent")
        with fleet.agent(config) as agent:
            item = fleet.push(
                queue,
                docker={"docker_image": cluster_wandb_image},
                resource="kubernetes",
                overrides={"entry_point": ["python", "-c", TRAIN]},
                additional_services=[{"config": database(cluster_image)}, {"config": SERVICE}],
            )
            wait_until(lambda: running("app=db"))
            os.kill(agent.program.process.pid, signal.SIGKILL)
        [db] = pods("app=db")
        assert [pod["status"]["phase"] for pod in pods("launch-async/item")] == ["Pending"]
        with fleet.agent(config):
            cluster.kubectl(
                "exec",
                db["metadata"]["name"],
                "--",
                "touch",
                READY,
                namespace=namespace,
            )
            ended = fleet.wait_for_item(queue, item, ENDED, within_seconds=120)
            assert ended["state"] == "FINISHED", ended
            wait_until(lambda: not pods("app=db"))
            services = f"/api/v1/namespaces/{namespace}/services"
            wait_until(lambda: not cluster.get(services)["items"])
        run = ended["associatedRunId"]
        assert f"db-{run}" in db["metadata"]["name"]
    [job] = cluster.get(f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 60
