"""Jobs and queues of every version of the client: made, pushed to, followed and deleted."""

import json
from typing import Any

import msgspec
import pytest
from clients_harness import Client, LivePlane

pytestmark = pytest.mark.acceptance

JOB = "tester/jobs/my-code:latest"
CREATE = ("job", "create", "-p", "jobs", "-e", "tester", "-n", "my-code", "-E", "python train.py")


class Pushed(msgspec.Struct, frozen=True):
    """What the commands printed and what the script saw."""

    created: str
    created_again: str
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def pushed(client: Client) -> Pushed:
    """Let one client make a job and do everything that queues are for."""
    folder = client.home / "code"
    folder.mkdir()
    (folder / "train.py").write_text("import wandb\nwandb.init()\n")
    (folder / "requirements.txt").write_text("wandb\n")
    created = client.run(client.wandb(*CREATE, "code", str(folder)))
    again = client.start(client.wandb(*CREATE, "code", str(folder)))
    facts = client.facts("push")
    return Pushed(created, client.wait(again).stdout, facts)


def test_every_document_is_valid_and_no_answer_a_fault(pushed: Pushed, plane: LivePlane) -> None:
    assert plane.graphql.invalid() == {}
    assert max(plane.graphql.asked.values()) < 500


def test_a_job_is_made_of_code_once(pushed: Pushed) -> None:
    assert "Created job: tester/jobs/my-code:v0" in pushed.created
    assert "No changes detected for job: tester/jobs/my-code:v0" in pushed.created_again


def test_a_job_is_listed_and_described(pushed: Pushed) -> None:
    assert "my-code -- versions (1): latest" in pushed.facts["listed"]
    assert "'entrypoint': ['python', 'train.py']" in pushed.facts["described"]
    assert pushed.facts["jobs"] == 1


def test_a_queue_is_made_once_and_read(pushed: Pushed) -> None:
    config = {"resource_args": {"local-process": {"size": "{{n}}", "kept": [1]}}}
    assert pushed.facts["made"] == ["local-process", "project", config, ["n"]]
    assert "has a queue 'made' already" in pushed.facts["made_twice"]


def test_a_queue_is_made_or_changed(pushed: Pushed) -> None:
    links = {"links": [{"label": "docs", "url": "https://example.com"}]}
    assert pushed.facts["upserted"] == ["V0", links]


def test_what_is_pushed_waits_in_its_queue(pushed: Pushed) -> None:
    assert pushed.facts["pushed_with_a_variable"] == ["pending", True]
    assert pushed.facts["pushed_with_a_priority"] == "pending"
    assert pushed.facts["called"] == "pending"


def test_a_refused_push_says_why(pushed: Pushed) -> None:
    assert "template variable 'n': 0 is less than 1" in pushed.facts["pushed_against_the_schema"]
    assert "Error adding run to queue" in pushed.facts["pushed_to_no_queue"]


def test_a_pushed_item_and_a_queue_can_be_deleted(pushed: Pushed) -> None:
    assert pushed.facts["taken_back"] == 1
    assert pushed.facts["queue_deleted"] == "CommError"


def test_the_launch_command_pushes_a_job(pushed: Pushed, plane: LivePlane) -> None:
    assert "Added run to queue made." in pushed.facts["launched"]
    rows = plane.rows("select run_spec from queue_items order by id desc limit 1")
    spec = json.loads(rows[0].run_spec)
    assert (spec["project"], spec["author"]) == ("Target", "tester")
    assert spec["resource_args"] == {"local-process": {"size": 5, "kept": [1]}}
