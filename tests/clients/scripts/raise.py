"""A run whose script ends by an error that nobody catches."""

import wandb

wandb.init(project="training", id="uncaught").log({"x": 1})
raise ValueError("boom")
