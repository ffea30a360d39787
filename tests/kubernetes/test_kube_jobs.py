"""Items of a Kubernetes queue, from the push to the finished run, on a real cluster."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tools import Cluster, wait_until
from kube_fleet import TRAIN, KubeFleet, job_args, kube_fleet

pytestmark = pytest.mark.acceptance

ENDED = {"FINISHED", "FAILED", "STOPPED"}


@pytest.fixture(scope="module")
def fleet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeFleet]:
    with kube_fleet(tmp_path_factory.mktemp("kube"), cluster) as made:
        yield made


def test_a_job_runs_to_a_finished_run_and_leaves_no_key_behind(
    fleet: KubeFleet, namespace: str, cluster_wandb_image: str, tmp_path: Path
) -> None:
    queue = fleet.make_kube_queue(namespace)
    with fleet.agent(fleet.config(namespace, tmp_path / "state")):
        item = fleet.push_script(queue, cluster_wandb_image, TRAIN)
        ended = fleet.wait_for_item(queue, item, ENDED, within_seconds=120)
        assert ended["state"] == "FINISHED", ended
        run = fleet.run(ended["associatedRunId"])
        assert run is not None
        assert run["state"] == "finished"
        assert run["historyLineCount"] == 3
        secrets = f"/api/v1/namespaces/{namespace}/secrets"
        wait_until(lambda: not fleet.cluster.get(secrets)["items"])
    [job] = fleet.cluster.get(f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 60
    assert fleet.control_plane.key not in json.dumps([job, fleet.cluster.pods(namespace)])


def test_a_failed_job_fails_its_item_with_its_code_and_its_last_lines(
    fleet: KubeFleet, namespace: str, cluster_wandb_image: str, tmp_path: Path
) -> None:
    queue = fleet.make_kube_queue(namespace)
    with fleet.agent(fleet.config(namespace, tmp_path / "state")):
        script = "print('about to break'); raise SystemExit(7)"
        item = fleet.push_script(queue, cluster_wandb_image, script)
        ended = fleet.wait_for_item(queue, item, ENDED, within_seconds=120)
    assert ended["state"] == "FAILED"
    assert "7" in ended["message"]
    [log] = [path for path in ended["filePaths"] if path.endswith("log.txt")] or [None]
    shown = ended["message"] if log is None else fleet.file_of(ended["associatedRunId"], log)
    assert "about to break" in shown


def test_a_pod_is_run_as_it_is(
    fleet: KubeFleet, namespace: str, cluster_wandb_image: str, tmp_path: Path
) -> None:
    args = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace},
        "spec": job_args(namespace)["spec"]["template"]["spec"],
    }
    queue = fleet.make_kube_queue(namespace, args)
    with fleet.agent(fleet.config(namespace, tmp_path / "state")):
        item = fleet.push_script(queue, cluster_wandb_image, TRAIN, **args)
        ended = fleet.wait_for_item(queue, item, ENDED, within_seconds=120)
        assert ended["state"] == "FINISHED", ended
        wait_until(lambda: not fleet.cluster.pods(namespace))


def test_a_manifest_that_the_cluster_refuses_fails_its_item_at_once(
    fleet: KubeFleet, namespace: str, cluster_wandb_image: str, tmp_path: Path
) -> None:
    queue = fleet.make_kube_queue(namespace)
    with fleet.agent(fleet.config(namespace, tmp_path / "state")):
        spec = {"completions": 2, "completionMode": "Odd"}
        item = fleet.push_script(queue, cluster_wandb_image, TRAIN, spec=spec)
        ended = fleet.wait_for_item(queue, item, ENDED, within_seconds=60)
    assert ended["state"] == "FAILED"
    assert "completionMode" in ended["message"]


def test_a_killed_agent_takes_its_jobs_up_again_with_and_without_its_journal(
    fleet: KubeFleet, namespace: str, cluster_wandb_image: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    script = TRAIN + "\nimport time\ntime.sleep(15)\n"
    config = fleet.config(namespace, state, name="killed-agent")
    queue = fleet.make_kube_queue(namespace)
    with fleet.agent(config) as agent:
        items = [fleet.push_script(queue, cluster_wandb_image, script) for _ in range(2)]
        jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        # The last that is made: a run without it has not begun, and is launched once more.
        secrets = f"/api/v1/namespaces/{namespace}/secrets"
        wait_until(lambda: len(fleet.cluster.get(secrets)["items"]) == 2)
        os.kill(agent.program.process.pid, signal.SIGKILL)
    with fleet.agent(config) as agent:
        agent.wait_for_status("adopted", 2)
        assert agent.status()["launched"] == 0
        os.kill(agent.program.process.pid, signal.SIGKILL)
    for journal in state.glob("journal*"):
        journal.unlink()
    with fleet.agent(config):
        for item in items:
            ended = fleet.wait_for_item(queue, item, ENDED, within_seconds=120)
            assert ended["state"] == "FINISHED", ended
        assert len(fleet.cluster.get(jobs)["items"]) == 2
