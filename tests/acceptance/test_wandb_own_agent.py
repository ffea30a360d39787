"""W&B's own commands and agent, unmodified, on our control plane."""

import json
from typing import Any

import pytest
from programs import ControlPlane, Shell

pytestmark = pytest.mark.acceptance

QUEUE = """
import sys
import wandb
wandb.Api().create_run_queue(name=sys.argv[1], type=sys.argv[2], entity=sys.argv[3])
"""
TRAIN = """
import wandb
with wandb.init(config={"lr": 0.1}) as run:
    run.log({"loss": 1.0})
    run.summary["lr_used"] = run.config.lr
"""
RUN = """query Run($entity: String!, $project: String!, $name: String!) {
  project(name: $project, entityName: $entity) { run(name: $name) { state summaryMetrics } }
}"""


def make_queue(shell: Shell, name: str, resource: str, entity: str) -> None:
    shell.write("make_queue.py", QUEUE)
    shell.run("python", "make_queue.py", name, resource, entity)


def finished_summary(control_plane: ControlPlane, project: str, run: str) -> dict[str, object]:
    """Wait for the run to appear and to finish, and return its summary."""

    def finished(data: dict[str, Any]) -> bool:
        return ((data["project"] or {}).get("run") or {}).get("state") == "finished"

    data = control_plane.ask_until(
        RUN,
        done=finished,
        entity=control_plane.entity,
        project=project,
        name=run,
    )
    return json.loads(data["project"]["run"]["summaryMetrics"])


def test_wandbs_agent_runs_a_code_job_as_a_process(
    control_plane: ControlPlane, shell: Shell
) -> None:
    entity = control_plane.entity
    make_queue(shell, "processes", "local-process", entity)
    shell.write("code/train.py", TRAIN)
    shell.write("code/requirements.txt", "wandb\n")
    create = ["--project", "jobs", "--entity", entity, "--name", "train"]
    shell.run(
        "wandb", "job", "create", *create, "--entry-point", "python train.py", "code", "./code"
    )
    config = json.dumps({"overrides": {"run_config": {"lr": 0.05}}})
    job = ["--job", f"{entity}/jobs/train:latest", "--queue", "processes", "--config", config]
    shell.run("wandb", "launch", *job, "--entity", entity, "--project", "target")

    agent = shell.start("wandb", "launch-agent", "--queue", "processes", "--entity", entity)
    run = agent.wait_for(r"WANDB_RUN_ID=(\w+)")[1]

    assert finished_summary(control_plane, "target", run)["lr_used"] == 0.05


@pytest.mark.docker
def test_wandbs_agent_runs_an_image_as_a_container(
    control_plane: ControlPlane, shell: Shell, wandb_image: str
) -> None:
    entity = control_plane.entity
    make_queue(shell, "containers", "local-container", entity)
    script = "import wandb; wandb.init(config={'lr': 0.1}).summary['inside'] = True"
    overrides = {"args": ["python", "-c", script]}
    image = ["--docker-image", wandb_image, "--queue", "containers"]
    config = json.dumps({"overrides": overrides})
    target = ["--entity", entity, "--project", "target"]
    shell.run("wandb", "launch", *image, "--config", config, *target)

    agent = shell.start("wandb", "launch-agent", "--queue", "containers", "--entity", entity)
    run = agent.wait_for(r"WANDB_RUN_ID=(\w+)")[1]

    assert finished_summary(control_plane, "target", run)["inside"] is True
