"""What a launched script does, under the key of its run alone: keyed.py FACTS."""

import pathlib

import wandb
from facts import fact, tell

with wandb.init(config={"lr": 0.1}) as run:
    for step in range(3):
        run.log({"loss": 1 / (step + 1)})
    pathlib.Path("notes.txt").write_text("kept")
    run.save("notes.txt")
    run.alert(title="hello", text="world")
    run.summary["done"] = True

    @fact
    def logged() -> list[str]:
        made = wandb.Artifact("model", "model")
        with made.new_file("weights.bin") as file:
            file.write("w")
        version = run.log_artifact(made, aliases=["candidate"])
        version.wait()
        version.aliases.append("best")
        version.save()
        return sorted(wandb.Api().artifact(f"{run.entity}/{run.project}/model:best").aliases)

    @fact
    def used() -> str:
        return run.use_artifact("model:candidate").version

    @fact
    def read() -> str:
        return wandb.Api().run(f"{run.entity}/{run.project}/{run.id}").id


tell()
