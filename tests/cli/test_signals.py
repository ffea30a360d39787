"""What signals do to a program of ours."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios

import anyio
import pytest

from launch_async.cli.signals import on_signals

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 15.0
PROGRAM = """
import anyio
from launch_async.cli.signals import on_signals

async def reload():
    print("reloaded", flush=True)

async def main():
    async with anyio.create_task_group() as tasks:
        await tasks.start(on_signals, print, reload)
        print("ready", flush=True)

anyio.run(main)
"""


async def test_a_hangup_reloads_and_the_others_stop():
    told: list[str] = []
    reloaded = anyio.Event()

    async def reload() -> None:
        told.append("reload")
        reloaded.set()
        await anyio.sleep_forever()  # while the service is away; others must be heard all the same

    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            stopped = anyio.Event()

            def stop(cause: str) -> None:
                told.append(cause)
                stopped.set()

            await tasks.start(on_signals, stop, reload)
            os.kill(os.getpid(), signal.SIGHUP)
            await reloaded.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await stopped.wait()
            tasks.cancel_scope.cancel()
    assert told == ["reload", "SIGTERM"]


async def test_many_hangups_are_two_reloads():
    begun: list[anyio.Event] = []
    stopped = anyio.Event()

    async def reload() -> None:
        begun.append(anyio.Event())
        await begun[-1].wait()

    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            await tasks.start(on_signals, lambda _: stopped.set(), reload)
            for _ in range(5):
                os.kill(os.getpid(), signal.SIGHUP)
                await anyio.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)
            await stopped.wait()
            assert len(begun) == 1
            begun[0].set()
            await anyio.wait_all_tasks_blocked()
            assert len(begun) == 2
            begun[1].set()
            await anyio.wait_all_tasks_blocked()
            assert len(begun) == 2
            os.kill(os.getpid(), signal.SIGHUP)
            while len(begun) < 3:
                await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()


def test_a_program_whose_terminal_is_closed_ends_as_any_other():
    master, slave = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(slave)
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        program.send_signal(signal.SIGHUP)
        assert program.stdout.readline() == b"reloaded\n"
        os.close(master)
        assert program.wait(DEADLINE_SECONDS) == -signal.SIGHUP
