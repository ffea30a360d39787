"""A run that asks for its own stop and goes on until it comes: endless.py RUN."""

import importlib
import signal
import sys
import time

import wandb

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
settings = wandb.Settings(x_file_stream_transmit_interval=1)
with wandb.init(project="training", id=sys.argv[1], settings=settings) as run:
    found = wandb.Api().run(f"tester/training/{sys.argv[1]}")
    if hasattr(found, "stop"):
        found.stop()
    else:  # what the older schedulers call
        importlib.import_module("wandb.apis.internal").Api().stop_run(found.storage_id)
    sys.stdout.write("asked\n")
    sys.stdout.flush()
    while True:
        run.log({"x": 1})
        time.sleep(0.1)
