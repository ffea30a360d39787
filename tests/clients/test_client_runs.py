"""Runs of every version of the client: what it logs is there, and its public API finds it."""

import json
import re
from typing import Any

import msgspec
import pytest
from clients_harness import Client, LivePlane

pytestmark = pytest.mark.acceptance

STATE = "select state, exit_code from runs where name = :name"
BODIES = (
    "select body from run_history join runs on runs.id = run_id where name = :name order by line"
)
STEPS = "select count(*) from run_history join runs on runs.id = run_id where name = :name"


class Trained(msgspec.Struct, frozen=True):
    """What the scripts saw, and what an offline run's sync printed."""

    train: dict[str, Any]
    read: dict[str, Any]
    synced: str


@pytest.fixture(scope="module")
def trained(client: Client) -> Trained:
    """Let one client do everything that runs are for."""
    uncaught = client.start(client.script("raise"))
    train = client.facts("train")
    client.wait(uncaught)
    read = client.start(client.script("read", str(client.home / "read.json")))
    synced = client.run(client.wandb("sync", train["offline"]))
    done = client.wait(read)
    assert done.returncode == 0, done.stdout
    read_facts = msgspec.json.decode((client.home / "read.json").read_bytes())
    return Trained(train, read_facts, synced)


def test_every_document_is_valid_and_no_answer_a_fault(trained: Trained, plane: LivePlane) -> None:
    assert plane.graphql.invalid() == {}
    assert max(plane.graphql.asked.values()) < 500


def test_a_run_is_known_by_what_it_was_given(trained: Trained) -> None:
    assert trained.read["words"] == {
        "state": "finished",
        "name": "The whole",
        "tags": ["one", "two", "three"],
        "notes": "some notes",
        "group": "family",
        "job_type": "train",
        "user": "tester",
    }
    assert trained.read["config"] == {"lr": 0.1, "nested": {"a": [1, 2]}, "late": True}


def test_the_summary_holds_what_was_set_and_what_came_last(trained: Trained) -> None:
    assert trained.read["summary"] == [42, 1 / 300, 299, 299]


def test_metrics_keep_their_definitions(trained: Trained) -> None:
    epoch, loss, glob = trained.read["defined"]
    assert (epoch, loss) == ("epoch", "loss")
    assert glob in {"val/*", "val/acc"}  # up to 0.28 the client fills in what a glob stands for


def test_every_step_is_kept_and_can_be_sampled(trained: Trained) -> None:
    read = trained.read
    assert read["scanned"] == list(range(301))
    assert read["history_of_a_key"] == list(range(300))
    assert read["scanned_key_in_pages"] == list(range(300))
    assert read["scanned_keys"] == [1 / (step + 1) for step in range(290, 295)]
    assert (len(read["history"]), read["history"][-1], read["last_step"]) == (7, 300, 300)


def test_system_metrics_are_kept(trained: Trained) -> None:
    assert trained.read["system_metrics"] > 0


def test_media_tables_and_saved_files_are_files_of_the_run(trained: Trained) -> None:
    files = trained.read["files"]
    assert {"config.yaml", "output.log", "wandb-metadata.json", "wandb-summary.json"} <= set(files)
    assert [name for name in files if re.fullmatch(r"media/images/picture_300_\w+\.png", name)]
    assert trained.read["table"] == [[1, "x"], [2, "y"]]
    assert trained.read["saved"] == "saved"
    assert trained.read["file_by_name"] == ["output.log"]


def test_what_was_printed_is_kept(trained: Trained, plane: LivePlane) -> None:
    assert [line for line in trained.read["console"].splitlines() if line.startswith("line")] == [
        f"line {number}" for number in range(30)
    ]
    lines = plane.rows(
        "select body from run_console join runs on runs.id = run_id where name = 'whole' "
        "order by line"
    )
    printed = "".join(row.body for row in lines)
    assert "line 29" in printed
    assert "a complaint" in printed


def test_an_alert_is_kept(trained: Trained, plane: LivePlane) -> None:
    (alert,) = plane.rows("select * from run_alerts")
    assert (alert.title, alert.text, alert.severity) == ("Loss is low", "very low", "WARN")


def test_a_logged_table_is_an_artifact_of_the_run(trained: Trained) -> None:
    assert (trained.read["logged_artifacts"], trained.read["used_artifacts"]) == (["run_table"], [])


def test_a_run_that_raises_has_failed(trained: Trained, plane: LivePlane) -> None:
    assert plane.rows(STATE, name="uncaught") == [("failed", 1)]
    assert trained.read["runs_by_state"] == ["broken", "uncaught"]


def test_a_run_is_resumed_where_it_left_off_and_only_where_it_may(trained: Trained) -> None:
    allowed, must, never, missing = trained.train["resumed"]
    assert (allowed, must) == (0, 2)
    assert "already exists" in never
    assert re.search(r"does not exist|not been initialized", missing)


def test_a_run_goes_back_to_a_step_and_on_from_there(trained: Trained, plane: LivePlane) -> None:
    assert trained.train["rewound"] == 3
    assert [json.loads(row.body)["x"] for row in plane.rows(BODIES, name="back")] == [0, 1, 2, 30]


def test_an_offline_run_is_synced(trained: Trained, plane: LivePlane) -> None:
    assert plane.rows(STATE, name="away") == [("finished", 0)], trained.synced
    assert plane.rows(STEPS, name="away") == [(5,)]


def test_runs_are_found_by_what_is_known_of_them(trained: Trained) -> None:
    read = trained.read
    assert read["runs_by_config"] == ["whole"]
    assert read["runs_by_summary"] == ["whole"]
    assert read["runs_by_tag"] == ["whole"]
    assert read["runs_by_words"] == ["whole"]
    assert read["no_such_run"].startswith("Could not find run")


def test_runs_come_in_pages_and_in_order(trained: Trained) -> None:
    read = trained.read
    assert {"again", "broken", "uncaught", "whole"} <= set(read["runs_in_pages"])
    assert read["number_of_runs"] == len(read["runs_in_pages"])
    first, last = read["runs_in_order"]
    assert first in {"uncaught", "whole"}
    assert last in {"away", "broken"}


def test_projects_and_the_viewer_are_known(trained: Trained) -> None:
    read = trained.read
    assert "training" in read["projects"]
    assert read["project"] == "training"
    assert read["viewer"] == ["tester", "tester"]


def test_a_run_can_be_changed_afterwards(trained: Trained) -> None:
    read = trained.read
    assert read["updated"] == [True, ["late"], "seen", "another", "regrouped"]
    assert read["updated_summary"] == [7, 2]
    assert read["uploaded"] == [[5], 0]


def test_a_run_can_be_deleted(trained: Trained) -> None:
    assert "broken" not in trained.read["deleted"]
    assert "whole" in trained.read["deleted"]
