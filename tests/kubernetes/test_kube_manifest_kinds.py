"""Objects of other kinds: each pod template in them is found, and their controllers left alone."""

import json
from typing import Any

import pytest
from kube_orders import ENVIRONMENT, IMAGE, manifest_of

from launch_async.adapters.runners.kubernetes.injection import CodeFetch
from launch_async.domain.errors import ItemError
from launch_async.testing import SECRET


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers) or [{"image": "${image_uri}"}], **spec}}


KINDS: dict[str, tuple[dict[str, Any], list[list[str | int]]]] = {
    "jobset": (
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "spec": {
                "replicatedJobs": [
                    {"name": "driver", "template": {"spec": {"template": pod()}}},
                    {"name": "workers", "template": {"spec": {"template": pod()}}},
                ]
            },
        },
        [["replicatedJobs", index, "template", "spec", "template"] for index in (0, 1)],
    ),
    "pytorchjob": (
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "spec": {
                "pytorchReplicaSpecs": {
                    "Master": {"replicas": 1, "template": pod()},
                    "Worker": {"replicas": 3, "restartPolicy": "OnFailure", "template": pod()},
                }
            },
        },
        [["pytorchReplicaSpecs", name, "template"] for name in ("Master", "Worker")],
    ),
    "volcano": (
        {
            "apiVersion": "batch.volcano.sh/v1alpha1",
            "kind": "Job",
            "spec": {"minAvailable": 2, "tasks": [{"name": "t", "template": pod()}]},
        },
        [["tasks", 0, "template"]],
    ),
    "rayjob": (
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "spec": {
                "entrypoint": "python t.py",
                "rayClusterSpec": {
                    "headGroupSpec": {"template": pod()},
                    "workerGroupSpecs": [{"groupName": "g", "template": pod()}],
                },
                "submitterPodTemplate": pod(),
            },
        },
        [
            ["rayClusterSpec", "headGroupSpec", "template"],
            ["rayClusterSpec", "workerGroupSpecs", 0, "template"],
            ["submitterPodTemplate"],
        ],
    ),
    "pod": ({"apiVersion": "v1", "kind": "Pod", **pod()}, [[]]),
    "cronjob": (
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "spec": {"jobTemplate": {"spec": {"template": pod()}}},
        },
        [["jobTemplate", "spec", "template"]],
    ),
}


def template_at(body: dict[str, Any], path: list[str | int]) -> dict[str, Any]:
    found: Any = body["spec"] if path else body
    for key in path:
        found = found[key]
    return found


@pytest.mark.parametrize("name", KINDS)
def test_each_pod_of_any_kind_is_marked_and_gets_variables_secrets_and_logins(name: str):
    args, paths = KINDS[name]
    manifest = manifest_of(args, pull_secret=True)
    assert (manifest.api_version, manifest.kind) == (args["apiVersion"], args["kind"])
    for path in paths:
        template = template_at(manifest.body, path)
        assert template["metadata"]["labels"]["launch-async/run"] == "7k2m9xq1"
        assert template["spec"]["imagePullSecrets"] == [{"name": f"{manifest.name}-pull"}]
        (container,) = template["spec"]["containers"]
        assert container["image"] == IMAGE
        assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        variables = {entry["name"]: entry for entry in container["env"]}
        assert variables.keys() == {*ENVIRONMENT, "WANDB_API_KEY"}
        assert variables["WANDB_RUN_ID"]["value"] == "7k2m9xq1"
        assert variables["WANDB_API_KEY"]["valueFrom"]["secretKeyRef"]["name"] == manifest.name
    assert SECRET not in json.dumps(manifest.body)


@pytest.mark.parametrize("name", ["jobset", "pytorchjob", "volcano", "rayjob", "cronjob"])
def test_other_kinds_keep_their_controllers_defaults(name: str):
    args, paths = KINDS[name]
    manifest = manifest_of(args)
    assert manifest.ttl_seconds is None
    assert manifest.body["spec"].keys() == args["spec"].keys()
    for path in paths:
        assert "restartPolicy" not in template_at(manifest.body, path)["spec"]


def test_where_the_run_comes_from_is_on_the_pods_of_other_kinds_and_not_on_those_of_jobs():
    args, (path, *_) = KINDS["pytorchjob"]
    body = manifest_of(args).body
    ours = body["metadata"]["annotations"]["launch-async/origin"]
    annotations = template_at(body, path)["metadata"]["annotations"]
    assert annotations == {"launch-async/origin": ours}


def commands(config: dict[str, Any], **order: Any) -> list[tuple[Any, Any]]:
    template = template_at(manifest_of(config, **order).body, KINDS["volcano"][1][0])
    return [(one.get("command"), one.get("args")) for one in template["spec"]["containers"]]


def volcano(*containers: dict[str, Any]) -> dict[str, Any]:
    tasks = [{"name": "t", "template": pod(*containers)}]
    return {**KINDS["volcano"][0], "spec": {"tasks": tasks}}


def test_a_container_with_the_runs_image_is_started_as_in_a_job():
    args = volcano({"image": "${image_uri}"}, {"image": "proxy:1"})
    order: dict[str, Any] = {"entrypoint": ("python",), "args": ("a",)}
    assert commands(args, **order) == [(["python"], ["a"]), (None, None)]


def test_the_program_of_a_kind_whose_images_are_its_queues_is_replaced_by_the_item_alone():
    args = volcano({"image": "ray:2", "command": ["ray"]}, {"image": "ray:2"})
    assert commands(args, entrypoint=("python",)) == [(["ray"], None), (None, None)]
    asked: dict[str, Any] = {"entrypoint": ("sh",), "entrypoint_asked": True, "args": ("a",)}
    assert commands(args, **asked) == [(["sh"], ["a"])] * 2


def test_images_of_other_kinds_are_their_queues():
    body = manifest_of(volcano({"image": "ray:2"}, {})).body
    containers = template_at(body, KINDS["volcano"][1][0])["spec"]["containers"]
    assert [one["image"] for one in containers] == ["ray:2", IMAGE]


def test_code_is_fetched_into_each_pod_that_has_a_part_of_the_run():
    replicas = {"Master": {"template": pod()}, "Other": {"template": pod({"image": "x:1"})}}
    args = {**KINDS["pytorchjob"][0], "spec": {"pytorchReplicaSpecs": replicas}}
    made = manifest_of(args, fetch=CodeFetch(image="agent:1")).body["spec"]["pytorchReplicaSpecs"]
    assert made["Master"]["template"]["spec"]["initContainers"][0]["image"] == "agent:1"
    assert made["Master"]["template"]["spec"]["containers"][0]["workingDir"] == "/mnt/wandb"
    assert "initContainers" not in made["Other"]["template"]["spec"]


def test_group_and_version_go_before_the_api_version():
    for helpers in ({"group": "ray.io", "version": "v1"}, {"version": "v1"}):
        manifest = manifest_of({"apiVersion": "ray.io/v1alpha1", "kind": "RayJob", **helpers})
        assert manifest.api_version == manifest.body["apiVersion"] == "ray.io/v1"
        assert not helpers.keys() & manifest.body.keys()


@pytest.mark.parametrize(
    ("args", "place", "remedy"),
    [
        ({"apiVersion": "ray.io/v1"}, "`kind` is missing", "say what of 'ray.io/v1' it is"),
        ({"kind": "RayJob"}, "`apiVersion` is missing", "as group/version"),
        ({"kind": "RayJob", "group": "ray.io"}, "`apiVersion`", "write it like"),
        ({"apiVersion": "../v1", "kind": "Pod"}, "`apiVersion` is '../v1'", "write it like"),
        ({"apiVersion": "v1", "kind": "pods/x"}, "`kind` is 'pods/x'", "write it like"),
    ],
)
def test_a_kind_that_cannot_be_told_is_named(args: dict[str, Any], place: str, remedy: str):
    with pytest.raises(ItemError) as error:
        manifest_of(args)
    assert place in str(error.value)
    assert remedy in str(error.value)
