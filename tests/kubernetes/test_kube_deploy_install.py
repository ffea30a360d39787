"""A release of the chart on a real cluster: two replicas in a namespace of restricted pods, one of
which acts. Their server is a process of this machine behind TLS that only its own certificate
vouches for, their runs are in another namespace.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from agent_harness import ENDED
from cluster_tools import Cluster, Json, has_condition, sharing, wait_until
from helm_tools import CHART, Helm
from kube_fleet import TRAIN, KubeFleet
from programs import BIN, SERVING, ControlPlane, Program, Shell, program_environment
from tls_front import TlsFront, tls_front
from yarl import URL

LEASE_SECONDS = 6
RELEASE = "launch-agent"
OWN_CA = "own-ca"
DISTRUSTFUL = "/tmp/other.log"  # noqa: S108 - of its pod
MONITORS = Path(__file__).with_name("pod_monitor.yaml")
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
"""127.0.0.1, the same as an address of IPv6, and ::1, as /proc/net writes them."""
LISTENING = "0A"
"""Its state in /proc/net/tcp."""
CA_OF_RUNS = "/etc/own-ca/ca.crt"


class Installed:
    """The release and what it works for."""

    def __init__(self, fleet: KubeFleet, front: TlsFront, own: str, jobs: str) -> None:
        self.fleet = fleet
        self.front = front
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

    @property
    def standby(self) -> str:
        """The pod that has it not."""
        [pod] = self.pods().keys() - {str(wait_until(lambda: self.holder))}
        return pod

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

    def probe(self, pod: str, path: str, port: int = 8484) -> tuple[int, str]:
        """What its admin endpoint says, asked from this machine."""
        found = self.cluster.get(f"/api/v1/namespaces/{self.own}/pods/{pod}")
        url = f"http://{found['status']['podIP']}:{port}{path}"
        command = ["curl", "--silent", "--noproxy", "*", "--max-time", "5", "-w", "%{http_code}"]
        said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
        return int(said[-3:]), said[:-3]

    def shell(self, pod: str, script: str) -> str:
        """What a script prints in one of its pods."""
        return self.cluster.kubectl("exec", pod, "--", "sh", "-ec", script, namespace=self.own)

    def connections(self, pod: str) -> tuple[set[int], set[int]]:
        """Ports on which others are connected to it, and those that it is connected to.

        Not what goes on within the pod, which no policy sees.
        """
        lines = self.shell(pod, "cat /proc/net/tcp /proc/net/tcp6").splitlines()
        rows = [line.split() for line in lines if ":" in line.split()[0]]
        rows = [row for row in rows if row[2].partition(":")[0] not in LOOPBACK]
        ports = [[int(end.rpartition(":")[2], 16) for end in row[1:3]] for row in rows]
        listens = {own for (own, _), row in zip(ports, rows, strict=True) if row[3] == LISTENING}
        came = {own for own, other in ports if other and own in listens}
        return came, {other for own, other in ports if other and own not in listens}

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
def kind_of_monitors(cluster: Cluster) -> Iterator[None]:
    """PodMonitors, as if the operator of Prometheus were there."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    made = yaml.safe_load(MONITORS.read_text())
    path = f"{definitions}/{made['metadata']['name']}"
    if cluster.find(path) is None:
        cluster.call("POST", definitions, made)
    cluster.wait_for(path, lambda found: has_condition(found, "Established"))
    try:
        yield
    finally:
        cluster.delete(path)


@contextmanager
def pod_fleet(folder: Path, front: TlsFront, cluster: Cluster) -> Iterator[KubeFleet]:
    """A server that pods reach by its front alone."""
    data = folder / "server"
    data.mkdir()
    command = [str(BIN / "launch-async"), "server", "--data", str(data)]
    command += ["--listen", "127.0.0.1:0", "--public-url", front.url]
    with ExitStack() as stack:
        program = stack.enter_context(Program.start(command, env=os.environ, cwd=data))
        serving = program.wait_for(SERVING.pattern)
        key = Path(serving["key_file"].strip()).read_text().strip()
        server = ControlPlane(data, program, url=serving["url"], key=key)
        front.serves = server.url
        env = program_environment(folder / "home", url=server.url, key=key)
        yield KubeFleet(server, Shell(folder / "work", env=env, programs=stack), cluster)


def values_of(fleet: KubeFleet, front: TlsFront, image: str, jobs: str) -> Json:
    agent = {"poll": 0.2, "poll_max": 0.5, "heartbeat": 1, "grace": 1}
    return {
        "baseUrl": front.url,
        "customCABundle": {"configMap": {"name": OWN_CA, "key": "its.pem"}},
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {"from": [{"namespaceSelector": {}}], "egress": egress_to(front.url)},
        "launchConfig": {"queues": [jobs], "max_jobs": -1, "agent": agent},
        "agent": {"image": image, "apiKey": fleet.control_plane.key, "replicas": 2},
        "additionalTargetNamespaces": [jobs],
        "lease": {"duration": LEASE_SECONDS, "renew": 1},
        "additionalSecretEnvVars": {"REGISTRY_PASSWORD": "in-a-secret"},
        "gitCreds": "https://oauth2:a-git-token@git.example.com\n",
        "sshAuthSecrets": [{"name": "deploy-key", "host": "git.example.com"}],
        "sshKnownHosts": "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE",
    }


def egress_to(url: str) -> list[Json]:
    """What docs/kubernetes.md says that an agent needs, whatever the addresses."""
    names = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return [{"ports": names}, {"ports": [{"port": 443}, {"port": URL(url).port}]}]


def queue_args(jobs: str) -> Json:
    """Runs trust the certificate too, as their queue gives it to them."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    container = {
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": name, "value": CA_OF_RUNS} for name in names],
        "volumeMounts": [{"name": "ca", "mountPath": str(Path(CA_OF_RUNS).parent)}],
    }
    key = {"items": [{"key": "its.pem", "path": Path(CA_OF_RUNS).name}]}
    volume = {"name": "ca", "configMap": {"name": OWN_CA, **key}}
    pod = {"volumes": [volume], "containers": [container]}
    return {"metadata": {"namespace": jobs}, "spec": {"template": {"spec": pod}}}


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
    with ExitStack() as stack:
        stack.enter_context(sharing(alone=False))
        stack.enter_context(kind_of_monitors(cluster))
        jobs = stack.enter_context(a_namespace(cluster, "jobs"))
        own = stack.enter_context(a_namespace(cluster, "agent", **restricted))
        front = stack.enter_context(tls_front(folder / "front", str(cluster.host)))
        fleet = stack.enter_context(pod_fleet(folder, front, cluster))
        fleet.make_kube_queue(jobs, queue_args(jobs))
        values = folder / "values.yaml"
        values.write_text(yaml.safe_dump(values_of(fleet, front, agent_image, jobs)))
        ca = {"metadata": {"name": OWN_CA}, "data": {"its.pem": front.certificate.read_text()}}
        for place in (own, jobs):
            cluster.call("POST", f"/api/v1/namespaces/{place}/configmaps", ca)
        key = {"metadata": {"name": "deploy-key"}, "stringData": {"ssh-privatekey": "a-key\n"}}
        cluster.call("POST", f"/api/v1/namespaces/{own}/secrets", key)
        stack.callback(helm.run, "uninstall", RELEASE, "-n", own)
        words = ["-n", own, "-f", str(values), "--wait", "--timeout", "120s"]
        helm.do("install", RELEASE, str(CHART), *words, seconds=150)
        made = Installed(fleet, front, own, jobs)
        distrust(made)
        yield made


def distrust(installed: Installed) -> None:
    """Let the pod that stands by begin the agent once more, without the bundle."""
    wait_until(lambda: len(installed.pods()) == 2)
    pod = installed.standby
    installed.cluster.wait_for(f"/api/v1/namespaces/{installed.own}/pods/{pod}", has_begun)
    settings = "agent: {state_dir: /tmp/other, admin: '127.0.0.1:0'}"
    agent = "timeout 60 launch-async agent -c /tmp/other.yaml -q none"
    script = f'echo "{settings}" > /tmp/other.yaml; unset SSL_CERT_FILE REQUESTS_CA_BUNDLE; {agent}'
    installed.shell(pod, f"{script} > {DISTRUSTFUL} 2>&1 < /dev/null &")


def has_begun(pod: Json) -> bool:
    return all(one.get("started") for one in pod["status"].get("containerStatuses") or [{}])


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


def test_without_the_bundle_the_same_agent_says_whom_it_does_not_trust(
    installed: Installed,
) -> None:
    pod = installed.standby
    read = partial(installed.shell, pod, f"cat {DISTRUSTFUL}")
    told = wait_until(lambda: said if "cannot be trusted" in (said := read()) else "", what=read)
    assert f"{installed.front.url} cannot be trusted" in told
    assert "name its CA with SSL_CERT_FILE" in told
    assert "agent registered" not in told


def test_its_monitor_leads_to_the_metrics_of_each_of_its_pods(installed: Installed) -> None:
    wait_until(lambda: len(installed.pods()) == 2)
    monitors = f"/apis/monitoring.coreos.com/v1/namespaces/{installed.own}/podmonitors"
    monitor = installed.cluster.get(f"{monitors}/{RELEASE}")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selector = labels_of(monitor["spec"]["selector"]["matchLabels"])
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    found = installed.cluster.pods(installed.own, selector)
    assert {pod["metadata"]["name"] for pod in found} >= installed.pods().keys()
    holder = wait_until(lambda: installed.holder)
    for pod in found:
        name, port = pod["metadata"]["name"], port_of(pod, endpoint["port"])
        status, said = installed.probe(name, endpoint["path"], port)
        assert status == 200, said
        assert f"launch_agent_standby {float(name != holder)}" in said


def test_its_policy_selects_its_pods_and_has_the_ports_that_they_use(installed: Installed) -> None:
    policies = f"/apis/networking.k8s.io/v1/namespaces/{installed.own}/networkpolicies"
    [policy] = installed.cluster.get(policies)["items"]
    spec = policy["spec"]
    holder = str(wait_until(lambda: installed.holder))
    found = installed.cluster.pods(installed.own, labels_of(spec["podSelector"]["matchLabels"]))
    [pod] = [one for one in found if one["metadata"]["name"] == holder]
    [rule] = spec["ingress"]
    entrances = {port_of(pod, port["port"]) for port in rule["ports"]}
    exits = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    came, went = installed.connections(holder)
    assert came <= entrances
    assert went <= exits
    assert URL(installed.front.url).port in went
    assert 443 in went, "the API server's"


def labels_of(wanted: Json) -> str:
    return ",".join(f"{name}={value}" for name, value in wanted.items())


def port_of(pod: Json, name: str) -> int:
    [port] = [
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container["ports"]
        if port["name"] == name
    ]
    return int(port)


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
