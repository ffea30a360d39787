"""A release of the chart on a real cluster: two replicas in a namespace of restricted pods, one of
which acts. Their server is a process of this machine, their runs are in another namespace.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from agent_harness import ENDED
from cluster_tools import Cluster, Json, sharing, wait_until
from helm_tools import CHART, Helm
from kube_fleet import TRAIN, KubeFleet
from programs import BIN, SERVING, ControlPlane, Program, Shell, program_environment

LEASE_SECONDS = 6
RELEASE = "launch-agent"


class Installed:
    """The release and what it works for."""

    def __init__(self, fleet: KubeFleet, own: str, jobs: str) -> None:
        self.fleet = fleet
        self.cluster = fleet.cluster
        self.own = own
        self.jobs = jobs

    @property
    def holder(self) -> str | None:
        """The pod that has the Lease."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.own}/leases/{RELEASE}"
        lease = self.cluster.find(path) or {"spec": {}}
        name: str = lease["spec"].get("holderIdentity") or ""
        return name.rpartition("-")[0] or None

    def pods(self) -> dict[str, bool]:
        """Whether each of the agent's pods is ready."""
        found = self.cluster.pods(self.own, "app.kubernetes.io/name=launch-async-agent")
        return {
            pod["metadata"]["name"]: any(
                one["type"] == "Ready" and one["status"] == "True"
                for one in pod["status"].get("conditions", ())
            )
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
        }

    def probe(self, pod: str, path: str) -> tuple[int, str]:
        """What its admin endpoint says, asked from this machine."""
        found = self.cluster.get(f"/api/v1/namespaces/{self.own}/pods/{pod}")
        url = f"http://{found['status']['podIP']}:8484{path}"
        command = ["curl", "--silent", "--noproxy", "*", "--max-time", "5", "-w", "%{http_code}"]
        said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
        return int(said[-3:]), said[:-3]

    def shell(self, pod: str, script: str) -> str:
        """What a script prints in one of its pods."""
        return self.cluster.kubectl("exec", pod, "--", "sh", "-ec", script, namespace=self.own)

    def push(self, image: str, script: str) -> str:
        return self.fleet.push_script(self.jobs, image, script)

    def finished(self, item: str) -> Json:
        ended = self.fleet.wait_for_item(self.jobs, item, set(ENDED), within_seconds=120)
        assert ended["state"] == "FINISHED", ended
        return ended


@contextmanager
def a_namespace(cluster: Cluster, name: str, **labels: str) -> Iterator[str]:
    name = f"launch-test-{name}-{os.getpid()}"
    metadata = {"name": name, "labels": {"launch-async-test": "true", **labels}}
    cluster.call("POST", "/api/v1/namespaces", {"metadata": metadata})
    cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
    try:
        yield name
    finally:
        for pod in cluster.pods(name):
            cluster.delete(f"/api/v1/namespaces/{name}/pods/{pod['metadata']['name']}", grace=1)
        cluster.delete(f"/api/v1/namespaces/{name}")


@contextmanager
def pod_fleet(folder: Path, cluster: Cluster) -> Iterator[KubeFleet]:
    """A server that pods reach, at the node's address."""
    data = folder / "server"
    data.mkdir()
    command = [str(BIN / "launch-async"), "server", "--data", str(data)]
    command += ["--listen", f"{cluster.host}:0"]
    with ExitStack() as stack:
        program = stack.enter_context(Program.start(command, env=os.environ, cwd=data))
        serving = program.wait_for(SERVING.pattern)
        key = Path(serving["key_file"].strip()).read_text().strip()
        server = ControlPlane(data, program, url=serving["url"], key=key)
        env = program_environment(folder / "home", url=server.url, key=key)
        yield KubeFleet(server, Shell(folder / "work", env=env, programs=stack), cluster)


def values_of(fleet: KubeFleet, image: str, jobs: str) -> Json:
    agent = {"poll": 0.2, "poll_max": 0.5, "heartbeat": 1, "grace": 1}
    return {
        "baseUrl": fleet.control_plane.url,
        "launchConfig": {"queues": [jobs], "max_jobs": -1, "agent": agent},
        "agent": {"image": image, "apiKey": fleet.control_plane.key, "replicas": 2},
        "additionalTargetNamespaces": [jobs],
        "lease": {"duration": LEASE_SECONDS, "renew": 1},
        "additionalSecretEnvVars": {"REGISTRY_PASSWORD": "in-a-secret"},
        "gitCreds": "https://oauth2:a-git-token@git.example.com\n",
        "sshAuthSecrets": [{"name": "deploy-key", "host": "git.example.com"}],
        "sshKnownHosts": "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE",
    }


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster,
    agent_image: str,
    cluster_wandb_image: str,
    tmp_path_factory: pytest.TempPathFactory,
    miss: Any,
) -> Iterator[Installed]:
    if not cluster.is_ours:
        miss("pods of a foreign cluster do not reach this machine: unset KUBECONFIG")
    folder = tmp_path_factory.mktemp("deploy")
    helm = Helm(folder / "helm", cluster.kubeconfig)
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    container = {"imagePullPolicy": "IfNotPresent"}
    with ExitStack() as stack:
        stack.enter_context(sharing(alone=False))
        jobs = stack.enter_context(a_namespace(cluster, "jobs"))
        own = stack.enter_context(a_namespace(cluster, "agent", **restricted))
        fleet = stack.enter_context(pod_fleet(folder, cluster))
        spec = {"template": {"spec": {"containers": [container]}}}
        fleet.make_kube_queue(jobs, {"metadata": {"namespace": jobs}, "spec": spec})
        values = folder / "values.yaml"
        values.write_text(yaml.safe_dump(values_of(fleet, agent_image, jobs)))
        key = {"metadata": {"name": "deploy-key"}, "stringData": {"ssh-privatekey": "a-key\n"}}
        cluster.call("POST", f"/api/v1/namespaces/{own}/secrets", key)
        stack.callback(helm.run, "uninstall", RELEASE, "-n", own)
        words = ["-n", own, "-f", str(values), "--wait", "--timeout", "120s"]
        helm.do("install", RELEASE, str(CHART), *words, seconds=150)
        yield Installed(fleet, own, jobs)


def test_one_of_two_replicas_is_ready_and_runs_what_is_pushed(
    installed: Installed, cluster_wandb_image: str
) -> None:
    wait_until(lambda: len(installed.pods()) == 2)
    holder = installed.holder
    assert holder is not None
    wait_until(lambda: installed.pods()[holder])
    [other] = installed.pods().keys() - {holder}
    wait_until(lambda: "holds the Lease" in installed.probe(other, "/readyz")[1])
    assert installed.probe(other, "/readyz")[0] == 503
    assert installed.probe(other, "/livez")[0] == 200
    assert installed.probe(holder, "/metrics")[0] == 200
    item = installed.push(cluster_wandb_image, TRAIN)
    run = installed.fleet.run(installed.finished(item)["associatedRunId"])
    assert run is not None
    assert run["state"] == "finished"
    assert not installed.pods()[other]


def test_the_agents_logins_are_where_git_ssh_and_the_agent_look(installed: Installed) -> None:
    pod = wait_until(lambda: installed.holder)
    ask = "printf 'protocol=https\\nhost=git.example.com\\n\\n' | git credential fill"
    assert "password=a-git-token" in installed.shell(pod, ask)
    known = "ssh-keygen -F git.example.com -f /etc/ssh/ssh_known_hosts"
    shown = installed.shell(pod, f"ssh -G git.example.com; {known}")
    assert "identityfile /etc/launch-async-ssh/deploy-key/ssh-privatekey" in shown
    assert "# Host git.example.com found" in shown
    read = "cat /etc/launch-async-ssh/deploy-key/ssh-privatekey; echo $REGISTRY_PASSWORD"
    assert installed.shell(pod, read).split() == ["a-key", "in-a-secret"]
    status = "launch-async agent -c /etc/launch-async/launch-config.yaml status --check readyz"
    assert "ok" in installed.shell(pod, status)


def test_when_the_holder_is_killed_the_other_takes_its_runs_over(
    installed: Installed, cluster_wandb_image: str
) -> None:
    holder = wait_until(lambda: installed.holder)
    script = "import time, wandb\nwith wandb.init():\n    time.sleep(4)"
    item = installed.push(cluster_wandb_image, script)
    run = wait_until(lambda: installed.fleet.item(installed.jobs, item)["associatedRunId"])
    installed.cluster.delete(f"/api/v1/namespaces/{installed.own}/pods/{holder}", grace=0)
    wait_until(lambda: installed.holder not in {None, holder})
    installed.finished(item)
    wait_until(lambda: installed.pods()[str(installed.holder)])
    assert list(installed.pods().values()).count(True) == 1
    found = installed.cluster.get(f"/apis/batch/v1/namespaces/{installed.jobs}/jobs")["items"]
    of_run = [one for one in found if one["metadata"]["labels"]["wandb.ai/run-id"] == run]
    assert len(of_run) == 1
