"""The unmodified client trains against our server."""

import pytest
from server_harness import LiveServer, WandbClient

pytestmark = pytest.mark.acceptance


def test_a_run_leaves_everything_it_told(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    done = wandb_client.python("""
import wandb
with wandb.init(project="everything", id="whole", config={"lr": 0.1, "nested": {"a": 1}},
                tags=["t1"], job_type="train", notes="some notes") as run:
    for step in range(25):
        run.log({"loss": 1 / (step + 1), "deep": {"er": step}})
        print("line", step)
    run.summary["best"] = 42
    run.save("train.py")
""")
    assert done.returncode == 0, done.stdout
    (run,) = live_server.rows("select * from runs where name = 'whole'")
    print(done.stdout)
    print(run)
