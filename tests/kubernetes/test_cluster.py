"""The cluster of the tests on Kubernetes is a real one, and is started as promised."""

import os
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from cluster_tools import (
    SCRIPT,
    Cluster,
    Kwok,
    NewNamespace,
    Refused,
    has_condition,
    job,
    script,
    wait_until,
)

from registry_servers import Registries

STATE = Path("/var/lib/launch-async-ci/cluster")


def ends(cluster: Cluster, namespace: str, name: str, *, seconds: float = 60.0) -> str:
    """Return the condition in which a Job ends."""
    found = cluster.wait_for(
        f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}",
        lambda job: has_condition(job, "Complete") or has_condition(job, "Failed"),
        seconds=seconds,
    )
    return "Complete" if has_condition(found, "Complete") else "Failed"


def only_pod(cluster: Cluster, namespace: str, name: str) -> dict:
    (pod,) = cluster.pods(namespace, f"job-name={name}")
    return pod


def test_a_job_runs_and_its_log_is_read(
    cluster: Cluster, namespace: str, cluster_image: str
) -> None:
    cluster.apply(job("hello", cluster_image, ["echo", "good morning"]), namespace)

    assert ends(cluster, namespace, "hello") == "Complete"
    pod = only_pod(cluster, namespace, "hello")
    assert cluster.logs(pod["metadata"]["name"], namespace) == "good morning\n"


def test_a_container_that_takes_too_much_memory_is_killed(
    cluster: Cluster, namespace: str, cluster_image: str
) -> None:
    greedy = job("greedy", cluster_image, ["sh", "-c", "x=$(yes | head -c 200000000); echo $x"])
    container = greedy["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"limits": {"memory": "32Mi"}}
    cluster.apply(greedy, namespace)

    assert ends(cluster, namespace, "greedy") == "Failed"
    (status,) = only_pod(cluster, namespace, "greedy")["status"]["containerStatuses"]
    assert status["state"]["terminated"]["reason"] == "OOMKilled"


def test_a_pod_reaches_services_and_the_api_server(
    cluster: Cluster, namespace: str, cluster_image: str
) -> None:
    web = "mkdir /tmp/w; echo served > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"
    metadata = {"name": "web", "labels": {"app": "web"}}
    container = {"name": "web", "image": cluster_image, "command": ["sh", "-c", web]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    cluster.apply(pod, namespace)
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}
    address = cluster.apply(body, namespace)["spec"]["clusterIP"]

    look = f"until wget -q -O - http://{address}; do sleep 0.2; done 2>/dev/null"
    call = "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null"
    cluster.apply(job("look", cluster_image, ["sh", "-c", f"{look}; {call}"]), namespace)

    assert ends(cluster, namespace, "look") == "Complete"
    looked = only_pod(cluster, namespace, "look")["metadata"]["name"]
    assert cluster.logs(looked, namespace) == "served\n"


def test_images_come_from_both_registries(
    cluster: Cluster, namespace: str, tiny_image: str, registries: Registries, tmp_path: Path
) -> None:
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}

    def docker(*words: str, stdin: str | None = None) -> None:
        subprocess.run(
            ["docker", *words],
            env=environment,
            input=stdin,
            check=True,
            capture_output=True,
            text=True,
        )

    login = registries.login
    docker("login", "-u", login.username, "--password-stdin", login.host, stdin=login.password)
    names = {}
    for registry in (registries.open, login):
        name = names[registry.host] = f"{registry.host}/on-cluster/{uuid4().hex[:8]}:1"
        docker("tag", tiny_image, name)
        docker("push", "--quiet", name)
        docker("rmi", name)
    cluster.kubectl(
        *("create", "secret", "docker-registry", "login"),
        f"--docker-server={login.host}",
        f"--docker-username={login.username}",
        f"--docker-password={login.password}",
        namespace=namespace,
    )

    cluster.apply(job("open", names[registries.open.host], ["true"]), namespace)
    pulls = {"imagePullSecrets": [{"name": "login"}]}
    cluster.apply(job("login", names[login.host], ["true"], pod=pulls), namespace)
    cluster.apply(job("stranger", names[login.host].replace(":1", ":2"), ["true"]), namespace)

    assert ends(cluster, namespace, "open") == "Complete"
    assert ends(cluster, namespace, "login") == "Complete"
    waiting = wait_until(
        lambda: (
            only_pod(cluster, namespace, "stranger")["status"]
            .get("containerStatuses", [{}])[0]
            .get("state", {})
            .get("waiting", {})
            .get("reason")
            in {"ErrImagePull", "ImagePullBackOff"}
        )
    )
    assert waiting


def test_a_namespace_may_ask_for_restricted_pods(
    cluster: Cluster, new_namespace: NewNamespace, cluster_image: str
) -> None:
    namespace = new_namespace(pod_security="restricted")
    container = {"name": "main", "image": cluster_image}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "free"}}

    with pytest.raises(Refused, match="violates PodSecurity"):
        cluster.apply({**pod, "spec": {"containers": [container]}}, namespace)


def test_pods_without_containers_go_as_they_are_told(
    cluster: Cluster, namespace: str, kwok: Kwok
) -> None:
    plays = {
        "good": kwok.play(),
        "bad": kwok.play(exit_code=3, reason="OOMKilled"),
        "long": kwok.play(runs_for="600s"),
    }
    for name, play in plays.items():
        cluster.apply(job(name, "none", ["x"], pod=kwok.pod(), annotations=play), namespace)

    assert ends(cluster, namespace, "good") == "Complete"
    assert ends(cluster, namespace, "bad") == "Failed"
    (status,) = only_pod(cluster, namespace, "bad")["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 3
    assert status["state"]["terminated"]["reason"] == "OOMKilled"
    assert "without containers" in cluster.logs(
        only_pod(cluster, namespace, "good")["metadata"]["name"], namespace
    )
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs/long"
    cluster.wait_for(path, lambda job: job["status"].get("ready") == 1)
    cluster.delete(path, propagation="Foreground")
    cluster.wait_gone(path)


@pytest.mark.parametrize(
    ("component", "signal"),
    [("apiserver", "TERM"), ("apiserver", "KILL"), ("etcd", "KILL"), ("kubelet", "TERM")],
)
def test_a_component_is_restarted_under_a_running_job(
    cluster_alone: Cluster, namespace: str, cluster_image: str, component: str, signal: str
) -> None:
    cluster = cluster_alone
    cluster.apply(job("goes-on", cluster_image, ["sh", "-c", "sleep 2; echo through"]), namespace)
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs/goes-on"
    cluster.wait_for(path, lambda job: job["status"].get("active") == 1)

    before = (STATE / "pid" / component).read_text()
    cluster.restart(component, signal)

    assert (STATE / "pid" / component).read_text() != before
    assert ends(cluster, namespace, "goes-on") == "Complete"
    pod = only_pod(cluster, namespace, "goes-on")["metadata"]["name"]
    assert cluster.logs(pod, namespace) == "through\n"


def test_what_was_stopped_is_seen_and_started_again(cluster_alone: Cluster) -> None:
    others = {file.name: file.read_text() for file in (STATE / "pid").iterdir()}
    cluster_alone.stop("scheduler")

    asked = subprocess.run([SCRIPT, "status"], capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert "does not answer" in asked.stderr

    assert script("up").strip() == str(cluster_alone.kubeconfig)
    assert script("status").strip() == str(cluster_alone.kubeconfig)
    after = {file.name: file.read_text() for file in (STATE / "pid").iterdir()}
    assert {name for name, pid in after.items() if pid != others[name]} == {"scheduler"}


def test_a_cluster_that_kubeconfig_names_is_used_and_nothing_started(
    cluster: Cluster, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(cluster.kubeconfig.read_bytes())
    state = tmp_path / "state"
    environment = {
        **os.environ,
        "KUBECONFIG": str(theirs),
        "LAUNCH_ASYNC_CLUSTER_STATE": str(state),
        "PATH": f"{Path(cluster.kubectl_program).parent}:{os.environ['PATH']}",
    }

    for verb in ("up", "status", "kubeconfig"):
        asked = subprocess.run(
            [SCRIPT, verb], env=environment, capture_output=True, text=True, check=False
        )
        assert (asked.returncode, asked.stdout.strip()) == (0, str(theirs)), asked.stderr
    refused = subprocess.run(
        [SCRIPT, "kwok-up"], env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "unset KUBECONFIG" in refused.stderr
    assert not state.exists()


def test_without_go_it_says_how_to_use_another_cluster(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "awk", "cat", "cut", "sha256sum"):
        found = subprocess.run(["which", name], check=True, capture_output=True, text=True)
        (programs / name).symlink_to(found.stdout.strip())
    environment = {"PATH": str(programs), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}

    asked = subprocess.run(
        [SCRIPT, "programs"], env=environment, capture_output=True, text=True, check=False
    )

    assert asked.returncode == 1
    assert "install Go" in asked.stderr
    assert "KUBECONFIG=FILE" in asked.stderr
