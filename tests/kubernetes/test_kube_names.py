"""Names and labels: derived, the same at each call, and always taken by Kubernetes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_orders import an_order

from launch_async.adapters.runners.kubernetes.names import (
    MAX_NAME,
    dns_words,
    is_dns_label,
    label_value,
    object_name,
    pull_secret_name,
    run_labels,
    service_labels,
)

SERVICE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


@pytest.mark.parametrize(
    ("prefix", "run_id", "start"),
    [
        ("launch", "7k2m9xq1", "launch-7k2m9xq1-"),
        ("train-gpt2-", "7k2m9xq1", "train-gpt2-7k2m9xq1-"),
        ("My_Job.v2", "Run_7", "my-job-v2-run-7-"),
        ("2nd", "r", "launch-2nd-r-"),
        ("--", "__", "launch-"),
        (f"{'x' * 28}-y", "7k2m9xq1", f"{'x' * 28}-7k2m9xq1-"),
        ("é", "ü", "launch-"),
    ],
)
def test_a_name_tells_the_prefix_and_the_run(prefix: str, run_id: str, start: str):
    name = object_name(prefix, run_id, "item")
    assert name.startswith(start)
    assert re.fullmatch(r"[0-9a-f]{8}", name.removeprefix(start))


@given(st.text(), st.text(), st.text())
def test_any_texts_make_a_name_that_controllers_can_append_to(prefix: str, run: str, item: str):
    name = object_name(prefix, run, item)
    assert len(name) <= MAX_NAME
    assert SERVICE_NAME.fullmatch(name)
    assert SERVICE_NAME.fullmatch(pull_secret_name(name))
    assert name == object_name(prefix, run, item)


def test_items_of_the_same_run_and_prefix_have_names_of_their_own():
    long = "x" * 100
    assert object_name(long, long, "item-1") != object_name(long, long, "item-2")


@given(st.text())
def test_any_text_makes_a_labels_value(text: str):
    value = label_value(text)
    assert len(value) <= 63
    assert LABEL_VALUE.fullmatch(value)
    assert value


def test_a_text_that_can_be_a_label_is_kept_and_others_stay_apart():
    assert label_value("7k2m9xq1") == "7k2m9xq1"
    assert label_value("a.B_c-9") == "a.B_c-9"
    made = {label_value(text) for text in ("", "a=", "a==", "-a", "a" * 64, "a" * 65, "a b")}
    assert len(made) == 7


@pytest.mark.parametrize(
    ("text", "fits"),
    [("team-a", True), ("a", True), ("a" * 63, True), ("9", True)]
    + [(text, False) for text in ("", "A", "a.b", "a/b", "../x", "-a", "a-", "a" * 64, "a\n", "ä")],
)
def test_what_can_be_a_namespace(text: str, fits: bool):
    assert is_dns_label(text) is fits


@given(st.text())
def test_words_for_dns_have_letters_digits_and_single_dashes(text: str):
    assert re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", dns_words(text))


def test_what_runs_beside_a_run_is_not_selected_with_its_pods():
    origin = an_order({}).origin
    of_run, beside = run_labels(origin), service_labels(origin)
    assert of_run["launch-async/identity"] == beside["launch-async/identity"] == "agent-1"
    assert "launch-async/item" not in beside
    assert beside["launch-async/service-of"] == of_run["launch-async/item"]
