"""A queue's config becomes a complete Job or Pod."""

from typing import Any

import msgspec
import pytest
from kube_orders import IMAGE, an_order, container_of, manifest_of, pod_of

from launch_async.adapters.runners.kubernetes.manifest import UNKNOWN_IMAGE, Place, place_of
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.domain.run import Origin

LABELS = {
    "launch-async/identity": "agent-1",
    "launch-async/run": "7k2m9xq1",
    "launch-async/item": "x-787f18552653058f293e1d4d910d2b3724bf0b28",
}
TEMPLATE = {"spec": {"nodeSelector": {"gpu": "a100"}}}


@pytest.mark.parametrize(
    "args",
    [
        {"spec": {"template": TEMPLATE, "parallelism": 2}},
        {"template": TEMPLATE, "parallelism": 2},
        {"spec": {"template": TEMPLATE}, "parallelism": 2},
        {"kind": "Job", "spec": {"template": TEMPLATE, "parallelism": 2}},
        {"apiVersion": "batch/v1", "spec": {"template": TEMPLATE, "parallelism": 2}},
        {"version": "v1", "group": "batch", "spec": {"template": TEMPLATE, "parallelism": 2}},
    ],
)
def test_part_of_a_job_becomes_a_whole_one(args: dict[str, Any]):
    manifest = manifest_of(args)
    assert (manifest.api_version, manifest.kind) == ("batch/v1", "Job")
    assert manifest.body.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert manifest.body["spec"].keys() == {
        "backoffLimit", "parallelism", "template", "ttlSecondsAfterFinished"
    }  # fmt: skip
    assert manifest.body["spec"]["parallelism"] == 2
    assert manifest.body["spec"]["backoffLimit"] == 0
    assert pod_of(manifest)["nodeSelector"] == {"gpu": "a100"}
    assert pod_of(manifest)["restartPolicy"] == "Never"
    assert container_of(manifest)["name"] == "launch0"
    assert container_of(manifest)["image"] == IMAGE


def test_an_empty_config_is_a_job_of_one_container():
    for args in ({}, {"spec": None}, {"spec": {"template": None}}):
        manifest = manifest_of(args)
        assert (manifest.namespace, manifest.name) == ("wandb", "launch-7k2m9xq1-787f1855")
        assert [one["image"] for one in pod_of(manifest)["containers"]] == [IMAGE]
    assert manifest_of({"spec": {"template": {"spec": {"containers": []}}}}) == manifest_of({})


def test_what_the_config_says_goes_before_defaults():
    spec = {"backoffLimit": 3, "template": {"spec": {"restartPolicy": "OnFailure"}}}
    manifest = manifest_of({"spec": spec})
    assert manifest.body["spec"]["backoffLimit"] == 3
    assert pod_of(manifest)["restartPolicy"] == "OnFailure"


def test_a_limit_for_each_index_is_not_undone_by_the_default_for_all():
    manifest = manifest_of({"spec": {"backoffLimitPerIndex": 1, "completionMode": "Indexed"}})
    assert "backoffLimit" not in manifest.body["spec"]


def test_a_pod_runs_once():
    manifest = manifest_of({"apiVersion": "v1", "kind": "Pod", "spec": {"priority": 1}})
    assert (manifest.api_version, manifest.kind, manifest.ttl_seconds) == ("v1", "Pod", None)
    assert manifest.body["spec"]["restartPolicy"] == "Never"
    assert container_of(manifest)["image"] == IMAGE
    assert manifest.body["metadata"]["labels"].items() >= LABELS.items()
    assert manifest_of({"kind": "Pod"}).api_version == "v1"


@pytest.mark.parametrize(
    ("asked", "written"), [(None, 600), (0, 600), (60, 600), (600, 600), (86_400, 86_400)]
)
def test_a_finished_job_stays_long_enough_and_its_queues_wish_is_kept(
    asked: int | None, written: int
):
    manifest = manifest_of({"spec": {"ttlSecondsAfterFinished": asked}})
    wish = 60 if asked is None else asked
    assert manifest.ttl_seconds == wish
    assert manifest.body["spec"]["ttlSecondsAfterFinished"] == written
    assert manifest.body["metadata"]["annotations"]["launch-async/ttl"] == str(wish)


@pytest.mark.parametrize(
    ("metadata", "start"),
    [
        ({"name": "train-gpt2"}, "train-gpt2-7k2m9xq1-"),
        ({"generateName": "train-gpt2-"}, "train-gpt2-7k2m9xq1-"),
        ({"name": "a", "generateName": "b-"}, "a-7k2m9xq1-"),
        ({"name": ""}, "launch-7k2m9xq1-"),
    ],
)
def test_the_name_begins_as_the_config_says(metadata: dict[str, Any], start: str):
    manifest = manifest_of({"metadata": metadata})
    assert manifest.name.startswith(start)
    assert manifest.body["metadata"]["name"] == manifest.name
    assert "generateName" not in manifest.body["metadata"]


@pytest.mark.parametrize(
    ("args", "namespace"),
    [
        ({}, "wandb"),
        ({"namespace": "team"}, "team"),
        ({"metadata": {"namespace": "team"}}, "team"),
        ({"metadata": {"namespace": "team"}, "namespace": "other"}, "team"),
    ],
)
def test_the_namespace_is_the_metadatas_then_the_helper_keys_then_the_default(
    args: dict[str, Any], namespace: str
):
    manifest = manifest_of(args)
    assert manifest.namespace == manifest.body["metadata"]["namespace"] == namespace


def test_keys_for_the_agent_are_not_sent():
    args = {"namespace": "n", "configFile": "/k", "context": "c", "group": "batch"}
    args |= {"version": "v1", "wait_for_ready": True, "wait_timeout": 3, "builder": {}}
    assert manifest_of(args).body.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert place_of(args, KubernetesPolicy()) == Place(config_file="/k", context="c", namespace="n")


def test_what_a_cluster_wrote_into_a_copied_manifest_is_not_sent():
    metadata = {"name": "a", "uid": "1", "resourceVersion": "2", "creationTimestamp": "3"}
    body = manifest_of({"metadata": metadata, "status": {"active": 1}}).body
    assert body["metadata"].keys() == {"name", "namespace", "labels", "annotations"}
    assert "status" not in body


def test_a_job_and_its_pods_carry_what_they_are_selected_by():
    own = {"kueue.x-k8s.io/queue-name": "users", "wandb.ai/run-id": "${run_id}"}
    args = {"metadata": {"labels": own}}
    manifest = manifest_of(args)
    labels = manifest.body["metadata"]["labels"]
    assert labels == {
        **LABELS,
        "kueue.x-k8s.io/queue-name": "users",
        "wandb.ai/run-id": "7k2m9xq1",
        "app.kubernetes.io/managed-by": "launch-async",
    }
    template = manifest.body["spec"]["template"]
    assert template["metadata"] == {"labels": LABELS}


def test_where_the_run_comes_from_can_be_read_back():
    annotations = manifest_of({}).body["metadata"]["annotations"]
    origin = msgspec.json.decode(annotations["launch-async/origin"], type=Origin)
    assert origin == an_order({}).origin


def test_labels_and_annotations_become_texts_as_a_template_variable_may_be_a_number():
    metadata = {"labels": {"a": 1, "b": True, "c": None}, "annotations": {"d": 1.5}}
    made = manifest_of({"metadata": metadata}).body["metadata"]
    assert made["labels"].items() >= {"a": "1", "b": "true"}.items()
    assert "c" not in made["labels"]
    assert made["annotations"]["d"] == "1.5"


def test_odd_ids_are_labels_all_the_same():
    manifest = manifest_of({}, run_id="run/ä", identity="agent one", item_id="=")
    labels = manifest.body["metadata"]["labels"]
    assert all(value.startswith("x-") for key, value in labels.items() if "managed" not in key)


def test_macros_of_an_image_that_is_not_known_yet_hold_a_name_that_can_be_tried():
    args = {"spec": {"template": {"spec": {"containers": [{"image": "${image_uri}"}]}}}}
    assert container_of(manifest_of(args, image=None))["image"] == UNKNOWN_IMAGE
    assert container_of(manifest_of({}, image=None))["image"] == UNKNOWN_IMAGE
    assert container_of(manifest_of(args))["image"] == IMAGE


def test_pull_secrets_are_appended():
    args = {"spec": {"template": {"spec": {"imagePullSecrets": [{"name": "theirs"}]}}}}
    manifest = manifest_of(args, pull_secret=True)
    assert manifest.pull_secret_name == f"{manifest.name}-pull"
    names = [secret["name"] for secret in pod_of(manifest)["imagePullSecrets"]]
    assert names == ["theirs", f"{manifest.name}-pull"]
    assert pod_of(manifest_of(args))["imagePullSecrets"] == [{"name": "theirs"}]
    assert "imagePullSecrets" not in pod_of(manifest_of({}))


RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
PROFILE = {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, RESTRICTED),
        ({"runAsUser": 1000}, {**RESTRICTED, "runAsUser": 1000}),
        ({"capabilities": {}}, {**RESTRICTED, "capabilities": {}}),
        (
            {"capabilities": {"add": ["NET_ADMIN"]}},
            {**RESTRICTED, "capabilities": {"add": ["NET_ADMIN"]}},
        ),
        (PROFILE, {**RESTRICTED, **PROFILE}),
        ({"allowPrivilegeEscalation": True}, {**RESTRICTED, "allowPrivilegeEscalation": True}),
        ({"privileged": True}, {"privileged": True}),
    ],
)
def test_restricted_pod_security_is_a_default(given: Any, made: dict[str, Any]):
    container = {"name": "c", "securityContext": given}
    pod = {"containers": [container], "initContainers": [dict(container, image="i")]}
    manifest = manifest_of({"spec": {"template": {"spec": pod}}})
    assert container_of(manifest)["securityContext"] == made
    assert pod_of(manifest)["initContainers"][0]["securityContext"] == made


def test_what_a_pod_says_for_all_its_containers_is_not_said_again():
    pod: dict[str, Any] = {"securityContext": PROFILE}
    made = container_of(manifest_of({"spec": {"template": {"spec": pod}}}))["securityContext"]
    assert made == {key: RESTRICTED[key] for key in ("allowPrivilegeEscalation", "capabilities")}


def test_a_capability_that_contradicts_is_left_to_its_admin():
    container = {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}
    pod = {"containers": [container]}
    made = container_of(manifest_of({"spec": {"template": {"spec": pod}}}))["securityContext"]
    assert "allowPrivilegeEscalation" not in made


def test_pods_for_windows_get_none_of_it():
    pod = {"os": {"name": "windows"}}
    made = container_of(manifest_of({"spec": {"template": {"spec": pod}}}))
    assert "securityContext" not in made
