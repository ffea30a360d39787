"""Git jobs of the real wandb client, fetched over https and run as local processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_harness import ENDED, Fleet, RunningAgent
from programs import ControlPlane, Shell

from git_servers import HttpsServer, Repository, https_server_aside

pytestmark = [pytest.mark.acceptance, pytest.mark.any_database]

CONFIG = """
queues: [processes]
agent: {{state_dir: {state_dir}, admin: "127.0.0.1:0", poll: 0.5, heartbeat: 1}}
"""
SCRIPT = """
import wandb
with wandb.init():
    print("as committed")
"""


@pytest.fixture
def git(tmp_path: Path) -> Iterator[HttpsServer]:
    with https_server_aside(tmp_path / "https") as server:
        yield server


@pytest.fixture
def fleet(control_plane: ControlPlane, shell: Shell, git: HttpsServer) -> Fleet:
    shell.env["GIT_SSL_CAINFO"] = str(git.ca_file)
    fleet = Fleet(control_plane, shell)
    fleet.make_queue("processes", "local-process")
    return fleet


@pytest.fixture
def agent(
    fleet: Fleet, tmp_path: Path, made_environments: Callable[[Path], Path]
) -> Iterator[RunningAgent]:
    config = CONFIG.format(state_dir=made_environments(tmp_path / "state"))
    with fleet.agent(config) as running:
        yield running


def printed_by(fleet: Fleet, job: str) -> list[str]:
    """What the job's run prints, once its item has ended well."""
    item = fleet.push("processes", job=job)
    found = fleet.wait_for_item("processes", item, ENDED, within_seconds=180)
    assert found["state"] == "FINISHED", found
    run = fleet.run(found["associatedRunId"])
    assert run is not None
    assert run["state"] == "finished"
    return [edge["node"]["line"].strip() for edge in run["logLines"]["edges"]]


def test_git_jobs_run_as_they_were_made(fleet: Fleet, agent: RunningAgent, git: HttpsServer):
    repository = Repository(git.root, "code")
    repository.commit({"sub/train.py": SCRIPT, "requirements.txt": "wandb==0.31.*\n"})
    names = ["--project", "jobs", "--entity", fleet.entity]
    fleet.shell.run(
        *("wandb", "job", "create", *names, "--name", "made", "--git-hash", "main"),
        *("--entry-point", "python sub/train.py", "git", git.remote(repository)),
    )
    assert "as committed" in printed_by(fleet, f"{fleet.entity}/jobs/made:latest")

    # A run in a checkout with changes makes a job that brings them along.
    fleet.shell.run("git", "clone", "--quiet", git.remote(repository), "checkout")
    fleet.shell.write("checkout/sub/train.py", SCRIPT.replace("as committed", "as changed"))
    fleet.shell.run(
        *("env", "-C", "checkout", "python", "sub/train.py"),
        WANDB_DISABLE_JOB_CREATION="false",
        WANDB_JOB_NAME="automatic",
        WANDB_PROJECT="jobs",
    )
    assert "as changed" in printed_by(fleet, f"{fleet.entity}/jobs/automatic:latest")
