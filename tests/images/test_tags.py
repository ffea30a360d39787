"""A tag names all that can change an image, and nothing else."""

import msgspec
import pytest

from launch_async.domain.image import MAX_TAG, ImageRef
from launch_async.images.tags import ImageFacts, tag_of, wandb_tag

FACTS = ImageFacts(
    context="c0ffee",
    dockerfile="FROM a\n",
    bases=[("a", "sha256:1")],
    platform=None,
    target=None,
    build_args={"A": "1", "B": "2"},
    has_mounts=False,
)


@pytest.mark.parametrize(
    "change",
    [
        {"context": "decaf"},
        {"dockerfile": "FROM a\nRUN b\n"},
        {"bases": [("a", "sha256:2")]},
        {"bases": [("a", None)]},
        {"platform": "linux/arm64"},
        {"target": "test"},
        {"build_args": {"A": "1"}},
        {"has_mounts": True},
    ],
)
def test_every_fact_changes_the_tag(change):
    assert tag_of(msgspec.structs.replace(FACTS, **change)) != tag_of(FACTS)


def test_the_order_in_which_build_args_are_given_does_not():
    assert tag_of(msgspec.structs.replace(FACTS, build_args={"B": "2", "A": "1"})) == tag_of(FACTS)


def test_a_tag_is_a_tag_and_long_enough():
    tag = tag_of(FACTS)
    assert ImageRef.parse(f"a/b:{tag}").tag == tag
    assert 32 <= len(tag) <= MAX_TAG
    assert tag == tag_of(FACTS)


def test_the_tag_of_wandbs_agent_is_over_the_job_version_and_the_dockerfile():
    assert wandb_tag(job="e/p/job:v1", dockerfile="FROM a\n") == "c22171aa"
