"""Resource configs that are wrong: one error with the place and the remedy, never another one."""

import copy
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kube_orders import ENVIRONMENT, manifest_of

from launch_async.adapters.runners.kubernetes.injection import CodeFetch
from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.secret import Secret
from launch_async.testing import SECRET


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": spec}}}


def container(**fields: Any) -> dict[str, Any]:
    return pod(containers=[fields])


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


FIRST = "spec.template.spec.containers[0]"


@pytest.mark.parametrize(
    ("args", "place", "said"),
    [
        ({"spec": []}, "spec", "must be an object, not a list"),
        ({"spec": {"template": "x"}}, "spec.template", "must be an object, not a text"),
        ({"metadata": 3}, "metadata", "must be an object, not a number"),
        ({"metadata": {"name": 3}}, "metadata.name", "must be a text, not a number"),
        ({"metadata": {"labels": []}}, "metadata.labels", "must be an object"),
        ({"metadata": {"labels": {"a": {}}}}, "metadata.labels.a", "must be a text, not an object"),
        (
            {"metadata": {"labels": {"launch-async/item": "x"}}},
            "metadata.labels['launch-async/item']",
            "the agent's own",
        ),
        ({"namespace": "a/../b"}, "namespace", "lower-case letters, digits and dashes"),
        ({"namespace": ["a"]}, "namespace", "must be a text"),
        ({"namespace": "A" * 1000}, "namespace", "A…'"),
        ({"apiVersion": "a" * 1000, "kind": "A"}, "apiVersion", "a…'"),
        ({"apiVersion": "v1", "kind": "A" * 1000}, "kind", "A…'"),
        ({"a" * 1000: math.inf}, "`aaa", "a…` is inf"),
        ({"apiVersion": 1}, "apiVersion", "must be a text"),
        ({"kind": True}, "kind", "must be a text, not true"),
        ({"spec": {"containers": []}}, "spec.containers", "`kind: Pod`"),
        ({"containers": []}, "containers", "belongs into `spec.template.spec`"),
        ({"template": {"containers": []}}, "spec.template.containers", "belongs into"),
        ({"spec": {"template": {}}, "template": {}}, "template", "is there twice"),
        ({"spec": {"ttlSecondsAfterFinished": "60"}}, "spec.ttlSecondsAfterFinished", "whole"),
        ({"spec": {"ttlSecondsAfterFinished": True}}, "spec.ttlSecondsAfterFinished", "whole"),
        ({"spec": {"ttlSecondsAfterFinished": -1}}, "spec.ttlSecondsAfterFinished", "0 or more"),
        (pod(containers={"image": "i"}), "spec.template.spec.containers", "put `- ` before each"),
        (pod(containers=["i"]), FIRST, "must be an object, not a text"),
        (pod(initContainers=3), "spec.template.spec.initContainers", "must be a list"),
        (pod(securityContext="x"), "spec.template.spec.securityContext", "must be an object"),
        (pod(imagePullSecrets=["s"]), "spec.template.spec.imagePullSecrets[0]", "an object"),
        (container(name=7), f"{FIRST}.name", "must be a text"),
        (container(image=["i"]), f"{FIRST}.image", "must be a text, not a list"),
        (container(command="python t.py"), f"{FIRST}.command", 'such as ["python", "train.py"]'),
        (container(args=[["a"]]), f"{FIRST}.args[0]", "must be a text, not a list"),
        (container(env={"A": "b"}), f"{FIRST}.env", "must be a list, not an object"),
        (container(env=[{"name": "A"}, {}]), f"{FIRST}.env[1]", "has no `name`"),
        (container(env=[{"name": 1}]), f"{FIRST}.env[0].name", "must be a text"),
        (container(env=[{"name": "A", "value": []}]), f"{FIRST}.env[0].value", "must be a text"),
        (container(securityContext=[]), f"{FIRST}.securityContext", "must be an object"),
        (container(x=math.nan), f"{FIRST}.x", "no number of JSON"),
        (container(x=1 << 64), f"{FIRST}.x", "write it as a text"),
        (container(x="\ud800"), f"{FIRST}.x", "half of a surrogate pair"),
        (container(x={1: 2}), f"{FIRST}.x.1", "put quotes around it"),
        (container(x={"\ud800": 2}), f"{FIRST}.x", "half of a surrogate pair"),
        (container(x=b"y"), f"{FIRST}.x", "is a bytes"),
        ({"x": nested(100)}, "x[0][0]", "nested deeper than 80 levels"),
        ({"x": nested(100_000)}, "x[0][0]", "nested deeper than 80 levels"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_the_remedy(
    args: dict[str, Any], place: str, said: str
):
    with pytest.raises(ItemError) as error:
        manifest_of(args, pull_secret=True)
    assert error.value.reason is Reason.RESOURCE_ARGS_INVALID
    assert place in str(error.value)
    assert said in str(error.value)
    assert len(str(error.value)) < 500


KEYS = st.sampled_from([
    "apiVersion", "kind", "metadata", "spec", "template", "containers", "initContainers", "env",
    "envFrom", "name", "value", "image", "command", "args", "labels", "annotations", "group",
    "namespace", "securityContext", "capabilities", "add", "volumes", "os", "volumeMounts",
    "imagePullSecrets", "ttlSecondsAfterFinished", "tasks", "generateName", "status", "hostPath",
    "serviceAccountName", "restartPolicy", "backoffLimit", "version", "configFile", "privileged",
])  # fmt: skip
WORDS = st.sampled_from([
    "Job", "Pod", "RayJob", "batch/v1", "v1", "ray.io/v1", "${image_uri}", "launch-async/run",
    "WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_BASE_URL", "windows", "SYS_ADMIN", "a-b", "$(X)",
])  # fmt: skip
LEAVES = st.one_of(
    WORDS,
    st.just(""),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=5),
        st.dictionaries(st.one_of(KEYS, st.text(max_size=3)), inner, max_size=3),
    ),
    max_leaves=25,
)
CONTAINER = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "name": WORDS,
            "image": st.one_of(WORDS, JUNK),
            "env": st.lists(
                st.fixed_dictionaries({"name": WORDS}, optional={"value": LEAVES}), max_size=3
            ),
            "command": st.lists(LEAVES, max_size=2),
            "securityContext": st.dictionaries(KEYS, JUNK, max_size=2),
            "more": JUNK,
        },
    ),
    JUNK,
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=80),
        "generateName": WORDS,
        "labels": st.dictionaries(st.text(max_size=4), LEAVES, max_size=2),
        "annotations": st.dictionaries(WORDS, LEAVES, max_size=2),
    },
)
POD = st.fixed_dictionaries(
    {"containers": st.lists(CONTAINER, max_size=3)},
    optional={"initContainers": st.lists(CONTAINER, max_size=1), "more": JUNK},
)
TEMPLATE = st.fixed_dictionaries({"spec": POD}, optional={"metadata": METADATA})
SHAPED = st.one_of(
    st.fixed_dictionaries(
        {"spec": st.fixed_dictionaries({"template": TEMPLATE}, optional={"suspend": LEAVES})},
        optional={"metadata": METADATA, "namespace": WORDS},
    ),
    st.fixed_dictionaries(
        {"apiVersion": st.just("v1"), "kind": st.just("Pod"), "spec": POD},
        optional={"metadata": METADATA},
    ),
    st.fixed_dictionaries(
        {
            "apiVersion": st.just("ray.io/v1"),
            "kind": st.just("RayJob"),
            "spec": st.fixed_dictionaries(
                {"groups": st.lists(st.dictionaries(KEYS, TEMPLATE, max_size=2), max_size=3)},
                optional={"more": JUNK},
            ),
        }
    ),
)
ARGS = st.one_of(SHAPED, st.dictionaries(st.one_of(KEYS, st.text(max_size=3)), JUNK, max_size=5))
ORDERS = st.fixed_dictionaries(
    {
        "run_id": st.text(max_size=30),
        "item_id": st.text(max_size=30),
        "args": st.lists(st.text(max_size=5), max_size=2).map(tuple),
        "entrypoint": st.sampled_from([(), ("python", "$(X)")]),
        "entrypoint_asked": st.booleans(),
        "image": st.sampled_from([None, "registry.example/team/image:tag"]),
        "pull_secret": st.booleans(),
        "policy": st.sampled_from(
            [
                KubernetesPolicy(),
                KubernetesPolicy(allow=frozenset(), service_accounts=(), config_files=()),
            ]
        ),
        "fetch": st.sampled_from([None, CodeFetch(image="a", secrets={"GIT": Secret(SECRET)})]),
    }
)
NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def templates(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and isinstance(spec.get("containers"), list):
            yield value
        for part in value.values():
            yield from templates(part)
    elif isinstance(value, list):
        for part in value:
            yield from templates(part)


def check(manifest: Manifest) -> None:
    sent = msgspec.json.encode(manifest.body).decode()
    assert json.loads(sent) == manifest.body
    assert SECRET not in sent
    metadata = manifest.body["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (manifest.name, manifest.namespace)
    names = [manifest.name, manifest.namespace, manifest.secret_name, manifest.pull_secret_name]
    assert all(NAME.fullmatch(name) for name in names if name is not None)
    ours = {key: metadata["labels"][f"launch-async/{key}"] for key in ("identity", "run", "item")}
    for template in templates(manifest.body):
        labels = template["metadata"]["labels"]
        assert {key: labels[f"launch-async/{key}"] for key in ours} == ours
        for one in template["spec"]["containers"]:
            assert one["name"]
            assert one["image"]
            sources = [
                entry["valueFrom"]["secretKeyRef"]
                for entry in one["env"]
                if entry["name"] == "WANDB_API_KEY"
            ]
            assert sources == [{"name": manifest.secret_name, "key": "WANDB_API_KEY"}]
            given = [entry["name"] for entry in one["env"]]
            assert all(given.count(name) == 1 for name in ENVIRONMENT if name != "WANDB_BASE_URL")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(ARGS, ORDERS)
def test_any_json_makes_a_manifest_that_keeps_the_rules_or_one_error(
    args: dict[str, Any], order: dict[str, Any]
):
    before = copy.deepcopy(args)
    wrong: ItemError | None = None
    try:
        manifest = manifest_of(args, **order)
        check(manifest)
        assert manifest_of(args, **order) == manifest
    except ItemError as error:
        wrong = error
    assert repr(args) == repr(before)
    if wrong is not None:
        assert wrong.reason in (Reason.RESOURCE_ARGS_INVALID, Reason.FORBIDDEN)
        assert SECRET not in str(wrong)
        str(wrong).encode()
