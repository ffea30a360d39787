"""Opaque ids: what was put in comes out, and nothing else does."""

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch_async.server.errors import ApiError
from launch_async.server.ids import (
    decode_id,
    decode_number,
    decode_run_id,
    encode_id,
    encode_run_id,
)

NAMES = st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1)


@given(NAMES, NAMES, NAMES)
def test_a_run_id_is_the_one_that_the_sweep_scheduler_builds(
    run: str, project: str, entity: str
) -> None:
    built = base64.b64encode(f"Run:v1:{run}:{project}:{entity}".encode()).decode()
    assert encode_run_id(run, project, entity) == built
    assert decode_run_id(built) == (run, project, entity)


@given(st.integers(0, 2**31 - 1))
def test_ids_of_numbers_are_good_in_paths_and_base64(number: int) -> None:
    opaque = encode_id("Artifact", number)
    assert set(opaque) <= set(string.ascii_letters + string.digits + "=")
    assert base64.b64decode(opaque, validate=True).decode() == f"Artifact:{number}"
    assert decode_number(opaque, "Artifact") == number


@given(st.text())
def test_no_text_is_more_than_not_found(text: str) -> None:
    for decode in (lambda: decode_id(text, "Project"), lambda: decode_run_id(text)):
        with pytest.raises(ApiError, match="not found") as refused:
            decode()
        assert refused.value.status == 404


def test_an_id_of_another_kind_is_not_found() -> None:
    with pytest.raises(ApiError, match="not found"):
        decode_id(encode_id("Project", 1), "RunQueue")
    with pytest.raises(ApiError, match="not found"):
        decode_number(encode_id("Project", "one"), "Project")


def test_a_number_that_no_row_can_have_is_not_found() -> None:
    with pytest.raises(ApiError, match="not found"):
        decode_number(encode_id("Artifact", 2**31), "Artifact")
