"""Trains in one process, by itself, resumed and offline: train.py FACTS. Runs on every client."""

import sys
from pathlib import Path

import numpy as np
import wandb
from facts import fact, tell

PROJECT = "training"


@fact
def whole() -> str:
    with wandb.init(
        project=PROJECT,
        id="whole",
        name="The whole",
        config={"lr": 0.1, "nested": {"a": [1, 2]}},
        tags=["one", "two"],
        group="family",
        job_type="train",
        notes="some notes",
        settings=wandb.Settings(x_stats_sampling_interval=0.1),
    ) as run:
        run.define_metric("epoch")
        run.define_metric("val/*", step_metric="epoch")
        run.define_metric("loss", summary="min")
        for step in range(300):
            run.log({"loss": 1 / (step + 1), "deep": {"er": step}, "val/acc": step, "epoch": step})
        run.log(
            {
                "picture": wandb.Image(np.zeros((4, 4, 3), dtype=np.uint8), caption="black"),
                "table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]]),
                "spread": wandb.Histogram([number % 7 for number in range(50)]),
            }
        )
        for line in range(30):
            sys.stdout.write(f"line {line}\n")
        sys.stderr.write("a complaint\n")
        run.summary["best"] = 42
        run.config.update({"late": True})
        run.tags += ("three",)
        run.alert("Loss is low", "very low", level=wandb.AlertLevel.WARN, wait_duration=0)
        Path("with blank %.txt").write_text("saved")
        run.save("with blank %.txt")
        return run.url


@fact
def resumed() -> list[object]:
    seen = []
    # A client that was refused an id has it in use until its process ends: these come last.
    for run_id, mode in (("again", "allow"), ("again", "must"), ("again", "never"), ("no", "must")):
        try:
            run = wandb.init(project=PROJECT, id=run_id, resume=mode)
        except (wandb.Error, SystemExit) as error:
            seen.append(str(error))
            continue
        with run:
            seen.append(run.starting_step)
            run.log({"x": 1})
            run.log({"x": 2})
    return seen


@fact
def rewound() -> int:
    with wandb.init(project=PROJECT, id="back") as run:
        for step in range(6):
            run.log({"x": step})
    with wandb.init(project=PROJECT, resume_from="back?_step=2") as run:
        run.log({"x": 30})
        return run.starting_step


@fact
def failed() -> None:
    try:
        with wandb.init(project=PROJECT, id="broken") as run:
            run.log({"x": 1})
            raise ValueError("boom")
    except ValueError:
        pass


@fact
def offline() -> str:
    with wandb.init(project=PROJECT, id="away", mode="offline", config={"a": 1}) as run:
        for step in range(5):
            run.log({"x": step})
        return str(Path(run.dir).parent)


tell()
