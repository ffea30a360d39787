"""What a launch puts into pods: image, command, variables, secrets, code."""

from pathlib import Path
from typing import Any

import pytest
from kube_orders import IMAGE, container_of, manifest_of, pod_of

from launch_async.adapters.runners.kubernetes.injection import CodeFetch
from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.domain.secret import Secret
from launch_async.ports.runner import ImageWork
from launch_async.testing import SECRET

OTHER = "proxy:1"


def job(*containers: dict[str, Any], **pod: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers), **pod}}}}


def images(manifest: Manifest) -> list[str]:
    return [container["image"] for container in pod_of(manifest)["containers"]]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ([{}], [IMAGE]),
        ([{"image": None}], [IMAGE]),
        ([{"image": ""}], [IMAGE]),
        ([{"image": OTHER}], [IMAGE]),
        ([{"image": OTHER}, {}], [OTHER, IMAGE]),
        ([{}, {"image": OTHER}], [IMAGE, OTHER]),
        ([{}, {}], [IMAGE, IMAGE]),
        ([{"image": OTHER}, {"image": "${image_uri}"}], [OTHER, IMAGE]),
        ([{"image": OTHER}, {"image": "proxy:2"}], [IMAGE, "proxy:2"]),
    ],
)
def test_the_runs_image_goes_where_it_is_asked_for_or_missing_else_first(
    given: list[dict[str, Any]], made: list[str]
):
    assert images(manifest_of(job(*given))) == made


def test_the_queues_image_stays_under_code_that_is_in_no_image():
    fetch = CodeFetch(image="agent:1")
    assert images(manifest_of(job({"image": OTHER}), fetch=fetch)) == [OTHER]
    work = ImageWork(image=IMAGE, code=Path("/code"))
    assert images(manifest_of(job({"image": OTHER}), work=work)) == [OTHER]
    assert images(manifest_of(job({}), fetch=fetch)) == [IMAGE]


def commands(manifest: Manifest) -> list[tuple[Any, Any]]:
    return [
        (container.get("command"), container.get("args"))
        for container in pod_of(manifest)["containers"]
    ]


def test_a_jobs_entry_point_leaves_the_queues_command_alone():
    args = job({"command": ["wrap"], "args": ["x"]})
    assert commands(manifest_of(args, entrypoint=("python", "t.py"))) == [(["wrap"], ["x"])]
    assert commands(manifest_of({}, entrypoint=("python", "t.py"))) == [(["python", "t.py"], None)]


def test_an_items_entry_point_and_arguments_go_before_the_queues():
    made = manifest_of(
        job({"command": ["wrap"], "args": ["x"]}),
        entrypoint=("python", "t.py"),
        entrypoint_asked=True,
        args=("--lr", "0.1"),
    )
    assert commands(made) == [(["python", "t.py"], ["--lr", "0.1"])]


def test_sidecars_keep_their_own_program():
    args = job({}, {"image": OTHER, "args": ["serve"]})
    made = manifest_of(args, entrypoint=("python",), entrypoint_asked=True, args=("a",))
    assert commands(made) == [(["python"], ["a"]), (None, ["serve"])]


def test_without_the_runs_image_all_containers_are_the_run():
    made = manifest_of(
        job({"image": OTHER}, {"image": OTHER}),
        fetch=CodeFetch(image="agent:1"),
        entrypoint=("python",),
        args=("a",),
    )
    assert commands(made) == [(["python"], ["a"])] * 2


def test_words_of_commands_become_texts():
    made = manifest_of(job({"command": ["run", 3, True], "args": [0.5]}))
    assert commands(made) == [(["run", "3", "true"], ["0.5"])]


def env_of(manifest: Manifest, index: int = 0) -> dict[str, Any]:
    entries = container_of(manifest, index)["env"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


def test_variables_and_secrets_are_in_each_container_and_not_in_those_that_prepare():
    manifest = manifest_of(job({}, {"image": OTHER}, initContainers=[{"image": "i"}]))
    wanted = {
        "WANDB_BASE_URL": "http://service.example",
        "WANDB_RUN_ID": "7k2m9xq1",
        "WANDB_API_KEY": {"secretKeyRef": {"name": manifest.name, "key": "WANDB_API_KEY"}},
    }
    assert env_of(manifest, 0) == env_of(manifest, 1) == wanted
    assert "env" not in pod_of(manifest)["initContainers"][0]
    assert manifest.secret_name == manifest.name
    assert SECRET not in str(manifest.body)


def test_the_containers_own_variables_are_kept_and_stand_first():
    own = [
        {"name": "MINE", "value": "$(HOME)/x"},
        {"name": "THEIRS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    source = [{"configMapRef": {"name": "c"}}]
    container = container_of(manifest_of(job({"env": own, "envFrom": source})))
    assert container["env"][:2] == own
    assert container["envFrom"] == source


def test_what_the_launch_says_of_its_run_wins_but_for_the_services_address():
    own = [
        {"name": "WANDB_RUN_ID", "value": "theirs"},
        {"name": "WANDB_API_KEY", "value": "plain"},
        {"name": "WANDB_BASE_URL", "value": "http://inside"},
    ]
    manifest = manifest_of(job({"env": own}))
    made = env_of(manifest)
    assert made["WANDB_RUN_ID"] == "7k2m9xq1"
    assert made["WANDB_BASE_URL"] == "http://inside"
    assert made["WANDB_API_KEY"]["secretKeyRef"]["name"] == manifest.name
    assert "plain" not in str(manifest.body)


def test_values_that_a_template_variable_made_numbers_are_texts():
    own = [{"name": "A", "value": 1}, {"name": "B", "value": 0.1}, {"name": "C", "value": False}]
    made = env_of(manifest_of(job({"env": own})))
    assert (made["A"], made["B"], made["C"]) == ("1", "0.1", "false")


def test_kubernetes_reads_no_variables_into_what_an_item_says():
    config = '{"note": "$(WANDB_API_KEY) costs $$5"}'
    made = manifest_of({}, environment={"WANDB_CONFIG": config}, args=("$(WANDB_API_KEY)",))
    assert env_of(made)["WANDB_CONFIG"] == '{"note": "$$(WANDB_API_KEY) costs $$$$5"}'
    assert container_of(made)["args"] == ["$$(WANDB_API_KEY)"]


def test_a_run_without_secrets_waits_for_none():
    manifest = manifest_of({}, secrets={})
    assert manifest.secret_name is None
    assert "valueFrom" not in str(manifest.body)


FETCH = CodeFetch(
    image="agent:1",
    args=("fetch", "a$b"),
    environment={"CODE": "team/p/code:v1"},
    secrets={"GIT_PASSWORD": Secret("local-91t-pa55")},
    working_directory="/mnt/wandb/sub",
)


def test_code_is_fetched_before_the_run_begins_in_its_folder():
    args = job({}, {"image": OTHER}, initContainers=[{"name": "net"}], volumes=[{"name": "own"}])
    manifest = manifest_of(args, fetch=FETCH)
    pod = pod_of(manifest)
    first, fetching = pod["initContainers"]
    assert first["name"] == "net"
    mount = [{"name": "launch-code", "mountPath": "/mnt/wandb"}]
    assert (fetching["image"], fetching["args"]) == ("agent:1", ["fetch", "a$$b"])
    assert fetching["volumeMounts"] == mount
    assert {entry["name"] for entry in fetching["env"]} == {
        "WANDB_BASE_URL", "WANDB_API_KEY", "CODE", "GIT_PASSWORD"
    }  # fmt: skip
    assert "command" not in fetching
    assert fetching["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["volumes"] == [{"name": "own"}, {"name": "launch-code", "emptyDir": {}}]
    run, sidecar = pod["containers"]
    assert (run["volumeMounts"], run["workingDir"]) == (mount, "/mnt/wandb/sub")
    assert "volumeMounts" not in sidecar


def test_what_only_fetching_needs_is_not_the_runs():
    manifest = manifest_of({}, fetch=FETCH)
    fetching = pod_of(manifest)["initContainers"][0]
    (password,) = [entry for entry in fetching["env"] if entry["name"] == "GIT_PASSWORD"]
    assert password["valueFrom"] == {
        "secretKeyRef": {"name": manifest.name, "key": "fetch.GIT_PASSWORD"}
    }
    assert "GIT_PASSWORD" not in env_of(manifest)
    assert "local-91t-pa55" not in str(manifest.body)
    assert manifest_of({}, fetch=FETCH, secrets={}).secret_name == manifest.name
