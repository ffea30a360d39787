"""A run of every version of the client stops when the server says so."""

import subprocess
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from clients_harness import Client, LivePlane, Template

from client_environments import REMEDY, VERSIONS, is_installed

pytestmark = pytest.mark.acceptance

Ends = dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[LivePlane]:
    """One server for all clients: each needs 15 seconds before it looks, and next to no work."""
    with template.served(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def ends(
    tmp_path_factory: pytest.TempPathFactory, shared: LivePlane, miss: Callable[[str], NoReturn]
) -> Ends:
    """Let every client run until it is stopped."""
    for version in VERSIONS:
        if not is_installed(version):
            miss(f"wandb {version} is missing: {REMEDY}")
    clients = [
        Client(version, tmp_path_factory.mktemp("home"), shared.plane) for version in VERSIONS
    ]
    started = [each.start(each.script("endless", f"run-{each.version}")) for each in clients]
    return {
        each.version: each.wait(process) for each, process in zip(clients, started, strict=True)
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_is_stopped_from_the_server(ends: Ends, shared: LivePlane, version: str) -> None:
    done = ends[version]
    assert "asked" in done.stdout, done.stdout
    assert done.returncode != 0, done.stdout
    (run,) = shared.rows("select * from runs where name = :name", name=f"run-{version}")
    assert run.state in {"failed", "killed"}, done.stdout
    assert run.stop_requested, done.stdout


def test_every_document_is_valid(ends: Ends, shared: LivePlane) -> None:
    assert shared.graphql.invalid() == {}
