"""Objects of the Kubernetes API are read whatever they lack, and little of them is kept."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch_async.adapters.runners.kubernetes.objects import (
    Custom,
    CustomStatus,
    Event,
    Job,
    Meta,
    Pod,
    unix_time,
)


def read(kind: type, body: Any) -> Any:
    return msgspec.json.decode(json.dumps(body), type=kind)


@pytest.mark.parametrize("kind", [Job, Pod, Event, Custom])
def test_an_object_may_lack_everything(kind: type):
    assert read(kind, {}) == kind()
    assert read(kind, {"metadata": {}}).metadata.name == ""


def nulled(kind: type) -> dict[str, Any]:
    """Every pointer, list, map and time of the kind as null, as Go writes an empty one."""
    body: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if isinstance(field.default, msgspec.Struct):
            body[field.encode_name] = nulled(type(field.default))
        elif field.default is None:
            body[field.encode_name] = None
    return body


@pytest.mark.parametrize("kind", [Job, Pod, Event, Custom])
def test_an_object_may_have_null_for_what_may_be_absent(kind: type):
    body = nulled(kind)
    assert body
    assert read(kind, body) == kind()


def test_parts_of_a_pod_may_be_null():
    pod = read(
        Pod,
        {
            "metadata": {"labels": None, "annotations": None, "ownerReferences": None},
            "spec": {"containers": None, "initContainers": None, "schedulingGates": None},
            "status": {
                "conditions": None,
                "containerStatuses": [{"name": "main", "state": None, "lastState": None}],
            },
        },
    )
    assert pod.metadata.label().run == ""
    assert pod.status.container_statuses[0].ended is None


def test_labels_and_annotations_are_those_that_mean_something():
    labels = {"launch-async/run": "r1", "launch-async/item": "i1", "team": "x" * 10_000}
    meta = read(Meta, {"labels": labels, "annotations": {"launch-async/origin": "{}", "k": "v"}})
    assert (meta.labels.run, meta.labels.item, meta.annotations.origin) == ("r1", "i1", "{}")
    assert len(msgspec.json.encode(meta)) < 200


def test_of_a_pods_conditions_only_those_are_kept_that_a_verdict_needs():
    kinds = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    told = [{"type": kind, "status": "True"} for kind in kinds]
    pod = read(Pod, {"status": {"conditions": told}})
    assert [one.type for one in pod.status.conditions] == ["Ready", "PodScheduled"]


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    status=ANYTHING
    | st.dictionaries(
        st.sampled_from([field.encode_name for field in msgspec.structs.fields(CustomStatus)]),
        ANYTHING,
    ),
    spec=ANYTHING,
)
def test_a_custom_resource_may_say_of_itself_what_it_likes(status: Any, spec: Any):
    custom = read(Custom, {"kind": "Thing", "spec": spec, "status": status})
    assert custom.kind == "Thing"


def test_the_many_steps_of_a_workflow_are_not_kept():
    nodes = {f"step-{number}": {"phase": "Succeeded"} for number in range(1000)}
    custom = read(Custom, {"status": {"phase": "Running", "nodes": nodes}})
    assert len(msgspec.json.encode(custom)) < 100


@pytest.mark.parametrize("text", ["", None, "soon", "2026-13-40T00:00:00Z"])
def test_what_is_no_time_is_none(text: str | None):
    assert unix_time(text) is None


def test_when_an_object_was_deleted_is_told_without_its_grace():
    meta = Meta(deletion_timestamp="2026-11-22T10:00:30Z", deletion_grace_period_seconds=30)
    assert meta.deleted_at == unix_time("2026-11-22T10:00:00Z")
    assert Meta().deleted_at is None


def test_an_event_is_as_new_as_its_newest_time():
    event = read(
        Event,
        {
            "firstTimestamp": None,
            "lastTimestamp": "2026-11-22T10:00:00Z",
            "eventTime": "2026-11-22T09:00:00.123456Z",
            "series": {"count": 3, "lastObservedTime": "2026-11-22T11:00:00.000000Z"},
        },
    )
    assert event.at == unix_time("2026-11-22T11:00:00Z")
