"""The unmodified client makes jobs of images, git and runs; tests/clients does the rest."""

import subprocess
from pathlib import Path

import pytest
from server_harness import LiveServer, WandbClient

pytestmark = pytest.mark.acceptance


def test_an_image_job_keeps_its_tag_as_alias(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    made = wandb_client.wandb("job", "create", "image", "img:v9", "-p", "imgs", "-n", "by-image")
    assert "Created job: " in made.stdout, made.stdout
    aliases = live_server.rows(
        "select alias from artifact_aliases join artifact_collections c on c.id = collection_id "
        "where c.name = 'by-image'"
    )
    assert {row.alias for row in aliases} == {"latest", "v9"}


def test_a_git_job_is_made(wandb_client: WandbClient, tmp_path: Path) -> None:
    repository = tmp_path / "demo.git"
    repository.mkdir()
    (repository / "train.py").write_text("print(1)\n")
    (repository / "requirements.txt").write_text("\n")
    author = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    # The client takes remote addresses only: an ssh of ours runs git on this machine instead.
    shell = tmp_path / "ssh"
    shell.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    shell.chmod(0o700)
    (wandb_client.home / ".gitconfig").write_text(
        f"[core]\n    sshCommand = {shell}\n[ssh]\n    variant = simple\n"
        "[safe]\n    directory = *\n"
    )

    made = wandb_client.wandb(
        "job", "create", "git", f"ssh://git.example.com{repository}",
        "-p", "gits", "-n", "by-git", "-E", "python train.py",
    )  # fmt: skip

    assert "Created job: " in made.stdout, made.stdout


def test_a_launch_without_its_queue_says_what_to_do(wandb_client: WandbClient) -> None:
    pushed = wandb_client.wandb(
        "launch", "-q", "nowhere", "-d", "img:1", "-e", "tester", "-p", "target"
    )
    assert "Unable to push to run queue nowhere. Queue not found." in pushed.stdout, pushed.stdout


def test_a_run_that_ends_leaves_a_job_to_run_it_again(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    script = """
import sys, wandb
with wandb.init(project="autos", id=sys.argv[1]) as run:
    if sys.argv[1] == "coded":
        run.log_code(".", include_fn=lambda path: path.endswith(".py"))
    run.log({"loss": 1})
"""
    command = wandb_client.command(script)
    wandb_client.environment["WANDB_DISABLE_JOB_CREATION"] = "false"
    coded = wandb_client.start([*command, "coded"])
    imaged = wandb_client.start([*command, "imaged"], WANDB_DOCKER="img:v1")
    printed = wandb_client.wait(coded).stdout + wandb_client.wait(imaged).stdout
    rows = live_server.rows(
        "select c.name, u.run_name, a.state from artifact_collections c "
        "join artifacts a on a.collection_id = c.id join artifact_runs u on u.artifact_id = a.id "
        "join projects p on p.id = c.project_id where p.name = 'autos' and u.role = 'input' "
        "order by u.run_name"
    )
    assert [tuple(row) for row in rows] == [
        ("job-source-autos-train.py", "coded", "COMMITTED"),
        ("job-img", "imaged", "COMMITTED"),
    ], printed
