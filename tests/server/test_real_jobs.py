"""The unmodified command line makes, lists and describes jobs, and launches them to a queue."""

import subprocess
from pathlib import Path

import pytest
from server_harness import LiveServer, WandbClient

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def code_job(
    tmp_path_factory: pytest.TempPathFactory, live_server: LiveServer
) -> subprocess.CompletedProcess[str]:
    """Make one job of a folder of code; every test may use it."""
    return create_code_job(WandbClient(tmp_path_factory.mktemp("job"), live_server.server))


def create_code_job(client: WandbClient) -> subprocess.CompletedProcess[str]:
    folder = client.home / "code"
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text("import wandb\nwandb.init()\n")
    (folder / "requirements.txt").write_text("wandb\n")
    made = client.wandb(
        "job", "create", "code", str(folder), "-p", "jobs", "-n", "my-code", "-E", "train.py"
    )
    assert made.returncode == 0, made.stdout
    return made


def test_a_code_job_can_be_made_listed_and_described(
    wandb_client: WandbClient, code_job: subprocess.CompletedProcess[str]
) -> None:
    assert "Created job: " in code_job.stdout
    again = create_code_job(wandb_client).stdout
    listed, described = wandb_client.together(
        wandb_client.cli("job", "list", "-p", "jobs", "-e", "tester"),
        wandb_client.cli("job", "describe", "tester/jobs/my-code:latest"),
    )

    assert "No changes detected for job: tester/jobs/my-code:v0" in again, again
    assert "my-code" in listed.stdout, listed.stdout
    assert "latest" in listed.stdout
    assert '"entrypoint"' in described.stdout or "'entrypoint'" in described.stdout, described


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


@pytest.mark.usefixtures("code_job")
def test_a_launch_puts_a_job_into_a_queue(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    prepared = wandb_client.python("""
import wandb
api = wandb.Api()
queue = api.create_run_queue(
    name="accept", type="local-process", entity="tester",
    config={"size": "{{n}}", "kept": [1]},
    template_variables={"n": {"schema": {"type": "integer", "minimum": 1, "default": 2}}},
)
assert queue.type == "local-process", queue.type
args = {"local-process": {"size": "{{n}}", "kept": [1]}}
assert queue.default_resource_config == {"resource_args": args}
assert queue.template_variables[0]["name"] == "n"
try:
    api.create_run_queue(name="accept", type="local-process", entity="tester", config={})
except Exception as error:
    assert "has a queue 'accept' already" in str(error), error
else:
    raise SystemExit("two queues of one name")
""")
    assert prepared.returncode == 0, prepared.stdout

    pushed = wandb_client.wandb(
        "launch", "-q", "accept", "-j", "tester/jobs/my-code:latest", "-e", "tester",
        "-p", "Target", "--set-var", "n=4",
    )  # fmt: skip

    assert pushed.returncode == 0, pushed.stdout
    (item,) = live_server.rows(
        "select i.* from queue_items i join run_queues q on q.id = queue_id where name = 'accept'"
    )
    assert '"resource_args":{"local-process":{"size":4,"kept":[1]}}' in item.run_spec
    assert '"author":"tester"' in item.run_spec


@pytest.mark.usefixtures("code_job")
def test_the_sdk_sees_and_deletes_what_it_queued(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    done = wandb_client.python("""
import wandb
from wandb.sdk.launch import launch_add
api = wandb.Api()
queue = api.upsert_run_queue(
    name="sdk", resource_type="local-container", entity="tester",
    resource_config={"env": ["A=1"]}, prioritization_mode="V0",
    external_links={"docs": "https://example.com"},
)
assert queue.prioritization_mode == "V0"
assert queue.external_links == {"links": [{"label": "docs", "url": "https://example.com"}]}
queued = launch_add(job="tester/jobs/my-code:latest", queue_name="sdk", entity="tester",
                    project="target", priority=0, config={"overrides": {"args": ["--x"]}})
assert queued.state == "pending", queued.state
assert [item.id for item in api.run_queue("tester", "sdk").items] == [queued.id]
queued.delete()
assert list(api.run_queue("tester", "sdk").items) == []
api.run_queue("tester", "sdk").delete()
print("ALL WELL")
""")
    assert "ALL WELL" in done.stdout, done.stdout
    assert live_server.rows("select * from run_queues where name = 'sdk'") == []


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
