"""The agent's chart and the plain manifests: what they make of values, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_tools import ROOT, Cluster, Json
from helm_tools import CHART, FULL, MINIMAL, Helm

from launch_async.config.load import parse_config

MANIFESTS = ROOT / "deploy/kubernetes/agent.yaml"
PLAIN_VALUES = ROOT / "deploy/kubernetes/values.yaml"


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"), cluster.kubeconfig)


def one_of(objects: list[Json], kind: str, name: str | None = None) -> Json:
    [found] = [
        one
        for one in objects
        if one["kind"] == kind and (name is None or one["metadata"]["name"] == name)
    ]
    return found


def config_of(objects: list[Json]) -> Any:
    content = one_of(objects, "ConfigMap")["data"]["launch-config.yaml"]
    return parse_config(content.encode(), name="launch-config.yaml").config


@pytest.mark.parametrize("values", [MINIMAL, FULL, PLAIN_VALUES], ids=lambda path: path.name)
def test_helm_finds_nothing_to_mend(helm: Helm, values: Path) -> None:
    helm.do("lint", "--strict", str(CHART), "-f", str(values))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"agent": {"imagee": "x"}}, "imagee"),
        ({"agent": {"replicas": "two"}}, "replicas"),
        ({"agent": {"replicas": 2}, "lease": {"enabled": False}}, "two agents would act as one"),
        ({"agent": {"replicas": 2}, "persistence": {"enabled": True}}, "ReadWriteMany"),
        ({"agent": {"apiKey": ""}}, "no API key: set agent.apiKey"),
        ({"launchConfig": ""}, "names no queue"),
        ({"launchConfig": "queues: [a"}, "launchConfig is not YAML"),
        ({"launchConfig": {"queues": ["a"], "agent": {"admin": ""}}}, "agent.adminPort"),
        ({"launchConfig": {"queues": ["a"], "agent": {"state_dir": "/x"}}}, "persistence"),
        ({"kinds": [{"kind": "JobSet"}]}, "apiVersion"),
        ({"customCABundle": {"configMap": {"name": "ca"}}}, "key"),
        ({"additionalTargetNamespaces": ["Upper"]}, "additionalTargetNamespaces"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_wrong_value_is_one_error_that_names_it(
    helm: Helm, tmp_path: Path, values: Json, told: str
) -> None:
    given = tmp_path / "values.yaml"
    given.write_text(yaml.safe_dump(values))
    words = ["--kube-version", "1.34.0", "-f", str(MINIMAL), "-f", str(given)]
    done = helm.run("template", "launch-agent", str(CHART), *words)
    assert done.returncode != 0
    assert told in done.stderr


def test_the_agent_reads_what_the_chart_makes_of_a_config(helm: Helm) -> None:
    config = config_of(helm.objects("-f", str(FULL)))
    assert [queue.name for queue in config.queue_configs()] == ["gpu", "cpu"]
    assert (config.max_jobs, config.entity) == (2_000_000, "my-team")
    assert config.agent.admin == "0.0.0.0:8484"
    assert config.agent.grace == 5
    kubernetes = config.agent.kubernetes
    assert kubernetes.namespaces == ("wandb", "jobs")
    assert kubernetes.kinds[-1] == "batch.volcano.sh/v1alpha1/Job"
    assert kubernetes.calls_per_second == 100
    assert kubernetes.lease.name == "launch-agent"
    assert kubernetes.code_image == "registry.example.com/launch-async-agent:0.1.0"


def test_secrets_are_nowhere_but_in_secrets(helm: Helm) -> None:
    objects = helm.objects("-f", str(FULL))
    secrets = [one for one in objects if one["kind"] == "Secret"]
    others = yaml.safe_dump([one for one in objects if one["kind"] != "Secret"])
    assert yaml.safe_dump(secrets).count("not-a") == 4
    assert "not-a" not in others


def test_no_right_of_the_whole_cluster_is_granted_unless_it_is_asked_for(helm: Helm) -> None:
    kinds = {one["kind"] for one in helm.objects("-f", str(FULL))}
    assert not {kind for kind in kinds if kind.startswith("Cluster")}
    everywhere = helm.objects("-f", str(MINIMAL), "--set", "additionalTargetNamespaces={*}")
    assert one_of(everywhere, "ClusterRole")["rules"]
    assert config_of(everywhere).agent.kubernetes.namespaces is None


def test_a_secret_that_is_there_is_used(helm: Helm) -> None:
    given = ["--set", "agent.apiKey=,agent.existingSecret.name=mine,agent.existingSecret.key=k"]
    objects = helm.objects("-f", str(MINIMAL), *given)
    assert "Secret" not in {one["kind"] for one in objects}
    [container] = one_of(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "k"}


def test_the_plain_manifests_are_those_of_the_chart(helm: Helm) -> None:
    rendered = helm.template("-n", "launch", "-f", str(PLAIN_VALUES))
    assert rendered == MANIFESTS.read_text(), "run `make manifests`"
    assert "Secret" not in {one["kind"] for one in yaml.safe_load_all(rendered)}


def test_the_api_server_takes_all_of_it(helm: Helm, cluster: Cluster, new_namespace: Any) -> None:
    own, jobs = new_namespace(pod_security="restricted"), new_namespace()
    places = ["--set", f"namespace={own},additionalTargetNamespaces={{{jobs}}}"]
    for words in (["-f", str(FULL), *places], ["-f", str(MINIMAL), "-n", own]):
        rendered = helm.template(*words)
        cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=rendered)
    monitored = ["--set", "podMonitor.enabled=true"]
    monitor = one_of(helm.objects("-f", str(MINIMAL), *monitored), "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0] == {
        "port": "admin",
        "path": "/metrics",
        "interval": "30s",
    }
