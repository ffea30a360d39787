"""Facts about processes, asked of real ones."""

import os
import signal
import subprocess

import anyio
import pytest

from launch_async.kit.names import plain_name
from launch_async.kit.procs import (
    boot_id,
    group_members,
    is_same_process,
    signal_group,
    start_time_ticks,
    wait_for_exit,
)

pytestmark = pytest.mark.anyio


def test_a_process_is_told_from_a_later_one_with_its_pid() -> None:
    ticks = start_time_ticks(os.getpid())
    assert ticks is not None
    assert is_same_process(os.getpid(), ticks, boot_id())
    assert not is_same_process(os.getpid(), ticks + 1, boot_id())
    assert not is_same_process(os.getpid(), ticks, "another-boot")


async def test_waiting_ends_when_the_process_does() -> None:
    with subprocess.Popen(["sleep", "0.2"]) as process:
        with anyio.fail_after(5):
            await wait_for_exit(process.pid)
        assert process.poll() == 0


async def test_waiting_for_a_stranger_or_for_nobody_ends_at_once() -> None:
    with anyio.fail_after(5):
        await wait_for_exit(os.getpid(), ticks=1)
        await wait_for_exit(2**22 - 1)


async def test_a_group_is_signalled_as_a_whole() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60"], start_new_session=True) as process:
        while len(group_members(process.pid)) < 3:
            await anyio.sleep(0.01)
        assert signal_group(process.pid, signal.SIGKILL)
        process.wait()
        with anyio.fail_after(5):
            while group_members(process.pid):
                await anyio.sleep(0.01)


@pytest.mark.parametrize("text", ["abc123", "Run_1.2-x"])
def test_a_plain_name_stays(text: str) -> None:
    assert plain_name(text) == text


@pytest.mark.parametrize("text", ["", "..", "a/b", ".hidden", "a b", "ä", "x" * 200])
def test_any_other_name_becomes_a_harmless_one(text: str) -> None:
    name = plain_name(text)
    assert name.startswith("x-")
    assert plain_name(text) == name
    assert plain_name(name) == name
