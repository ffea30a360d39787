"""Starts a shim: Popen in a worker thread, since it uses vfork where uvloop's own spawn forks."""

import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen

from launch_async.adapters.runners.process import shim

_SHIM_VARIABLES = ("PATH", "LD_LIBRARY_PATH")
"""What a Python interpreter may need to come up; the job's environment goes in by stdin."""


def spawn_shim(record: Path, payload: bytes, lock: int, *, within_seconds: float) -> Popen[bytes]:
    """A shim for this record folder, once it has begun (or failed, which the record tells).

    `lock` is the locked descriptor that the shim keeps open; `payload` holds secrets and goes
    through a pipe only. Blocks: for a worker thread.
    """
    with (record / "shim.log").open("ab") as errors:
        process = Popen(
            # -S: nothing of site-packages is needed, and it starts in half the time.
            [sys.executable, "-I", "-S", shim.__file__, str(record)],
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            cwd="/",
            env={name: os.environ[name] for name in _SHIM_VARIABLES if name in os.environ},
            start_new_session=True,
            pass_fds=(lock,),
        )
    if process.stdin is None or process.stdout is None:
        raise AssertionError("Popen gave no pipes")
    with process.stdout as answer:
        with suppress(BrokenPipeError), process.stdin as order:
            order.write(payload)
        ready = select.poll()
        ready.register(answer, select.POLLIN)
        if ready.poll(within_seconds * 1000):
            os.read(answer.fileno(), 2)
    return process
