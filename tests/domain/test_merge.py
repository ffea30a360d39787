"""An item's resource arguments over its queue's."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from launch_async.domain.merge import merge

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES)


def test_objects_merge_and_lists_are_replaced() -> None:
    queue = {"kubernetes": {"spec": {"a": 1, "list": [1, 2]}, "kind": "Job"}}
    item = {"kubernetes": {"spec": {"b": 2, "list": [3]}}}

    assert merge(queue, item) == {
        "kubernetes": {"spec": {"a": 1, "b": 2, "list": [3]}, "kind": "Job"}
    }


def test_a_null_replaces() -> None:
    assert merge({"a": {"b": 1}}, {"a": None}) == {"a": None}


@settings(deadline=None)  # a loaded machine is no error
@given(OBJECTS, OBJECTS)
def test_every_leaf_of_the_override_wins_and_nothing_is_shared(
    base: dict[str, Any], over: dict[str, Any]
) -> None:
    before = copy.deepcopy((base, over))

    merged = merge(base, over)

    assert (base, over) == before
    assert merge(merged, over) == merged
    assert merge(base, {}) == base
    assert merge({}, over) == over
    assert set(merged) == set(base) | set(over)
