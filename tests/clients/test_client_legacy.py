"""Runs of the older service of wandb 0.19, on which its `wandb job create` works too."""

from collections.abc import Callable
from typing import NoReturn

import pytest
from clients_harness import Client, LivePlane

from client_environments import REMEDY, is_installed

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def version(miss: Callable[[str], NoReturn]) -> str:
    """The last client that has this service."""
    if not is_installed("0.19"):
        miss(f"wandb 0.19 is missing: {REMEDY}")
    return "0.19"


def test_the_older_service_leaves_a_whole_run(client: Client, plane: LivePlane) -> None:
    facts = client.facts("legacy")
    assert facts["logged"] == "v0"
    assert facts["resumed"] == 50
    assert facts["read"] == ["finished", {"lr": 0.1}, 42, True]
    lines = plane.rows("select body from run_console")
    assert any("a line" in row.body for row in lines), lines
    assert plane.graphql.invalid() == {}
    assert max(plane.graphql.asked.values()) < 500
