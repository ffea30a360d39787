"""A server that is born fast, again and again: what takes time is imported once, then forked.

    ["--data", …]   a child runs `launch-async server` with these arguments
    []              the child gets a SIGKILL; `ended EXIT_CODE` says how it really ended

It is a program, with such lines on stdin; its answers are on stdout, among what the child prints.
"""

import gc
import importlib
import json
import os
import signal
import sys

from launch_async.cli.server import server

LATE = ("anyio._backends._asyncio", "asyncpg", "uvloop")  # what a server imports as it starts


def main() -> None:
    """Do what stdin says until it ends."""
    for name in LATE:
        importlib.import_module(name)
    gc.freeze()  # a child that marked it would copy it
    child = 0
    for line in sys.stdin:
        if words := json.loads(line):
            child = os.fork()
            if child == 0:
                server.main(words, prog_name="launch-async server")
        else:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            print("ended", os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
