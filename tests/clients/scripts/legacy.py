"""A run of 0.19's older service, which is Python throughout: legacy.py FACTS."""

import sys

import wandb
from facts import fact, tell

wandb.require("legacy-service")


@fact
def logged() -> str:
    with wandb.init(project="legacy", id="old", config={"lr": 0.1}) as run:
        for step in range(50):
            run.log({"loss": step, "deep": {"er": step}})
        sys.stdout.write("a line\n")
        run.summary["best"] = 42
        run.alert("title", "text", wait_duration=0)
        artifact = wandb.Artifact("data", "dataset")
        with artifact.new_file("x") as file:
            file.write("x")
        return run.log_artifact(artifact).wait().version


@fact
def resumed() -> int:
    with wandb.init(project="legacy", id="old", resume="must") as run:
        run.log({"loss": 50})
        return run.starting_step


@fact
def read() -> list[object]:
    run = wandb.Api().run("tester/legacy/old")
    steps = [row["loss"] for row in run.scan_history()]
    return [run.state, run.config, run.summary["best"], steps == list(range(51))]


tell()
