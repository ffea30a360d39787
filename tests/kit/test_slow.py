"""Slow blocks are said once, quick ones never."""

import anyio
import pytest

from launch_async.kit.slow import said_when_slow

pytestmark = pytest.mark.anyio


async def test_a_slow_block_is_said_while_it_lasts():
    said = anyio.Event()
    with anyio.fail_after(5.0), said_when_slow(said.set, after_seconds=0.01):
        await said.wait()


async def test_a_block_that_is_over_is_not_said():
    said: list[str] = []
    for fails in (False, True):
        try:
            with said_when_slow(lambda: said.append("slow"), after_seconds=0.01):
                if fails:
                    raise ValueError
        except ValueError:
            assert fails
    await anyio.sleep(0.05)
    assert not said
