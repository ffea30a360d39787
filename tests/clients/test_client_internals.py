"""What agents and commands of clients before 0.31 ask by the client's own inner API."""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from clients_harness import Client, LivePlane

from client_environments import REMEDY, is_installed

pytestmark = [pytest.mark.acceptance, pytest.mark.any_database]

Facts = dict[str, Any]


@pytest.fixture(scope="module", params=["0.19", "0.23", "0.28"])
def version(request: pytest.FixtureRequest, miss: Callable[[str], NoReturn]) -> str:
    """The clients that have such an API."""
    if not is_installed(request.param):
        miss(f"wandb {request.param} is missing: {REMEDY}")
    return request.param


@pytest.fixture(scope="module")
def inner(client: Client) -> Facts:
    """Let one client ask everything."""
    return client.facts("internal")


def test_every_document_is_valid_and_no_answer_a_fault(inner: Facts, plane: LivePlane) -> None:
    assert plane.graphql.invalid() == {}
    assert max(plane.graphql.asked.values()) < 500


def test_a_run_is_made_and_seen(inner: Facts) -> None:
    assert inner["run_upserted"][:3] == ["r1", "tester", True]
    assert inner["run_upserted"][3:] in ([], [[]])  # the server's messages, up to 0.23
    assert inner["runs"] == ["r1"]
    assert inner["run_seen"] == ["r1", "running", False, True]
    assert inner["rewound"] == "r1"
    assert inner["alerted"] is True


def test_files_are_pushed_and_pulled(inner: Facts) -> None:
    assert inner["pushed_files"] == [["wandb-metadata.json"], "t.py", "c", True]


def test_people_and_projects_are_known(inner: Facts) -> None:
    username, entity, server = inner["viewer"]
    assert (username, entity) == ("tester", "tester")
    assert "cliVersionInfo" in server
    assert inner["newest_client"] is True
    assert inner["projects"] == [["inner", "model-registry", "other"], "inner"]
    assert inner["team"] is False


def test_an_agent_takes_acks_and_fails_items(inner: Facts) -> None:
    assert inner["queue"] == [["inner"], "PROJECT"]
    assert inner["agent_seen"] == [True, "RUNNING", False, True]
    assert inner["item_acked"] == [{"docker_image": "img:1"}, True, None]
    assert inner["item_failed"] == [True, True]
