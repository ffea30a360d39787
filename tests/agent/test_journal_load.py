"""The journal while many items move at once and the loop is busy."""

import time
from pathlib import Path

import anyio
import pytest
from fakes import an_item

from launch_async.adapters.journals.sqlite import SqliteJournal
from launch_async.domain.phase import Phase
from launch_async.ports.journal import Entry

pytestmark = pytest.mark.anyio


async def test_items_that_end_at_once_on_a_busy_loop_lock_nothing(tmp_path: Path):
    """SQLite refuses a checkpoint while the answer of an earlier one has not been fetched."""

    async def end_after_writes(number: int) -> None:
        item = an_item(number)
        for _ in range(number % 3):
            await journal.write(Entry(item=item, phase=Phase.RUNNING))
        await journal.forget(item.id)

    async def be_busy() -> None:
        for _ in range(40):
            time.sleep(0.005)  # noqa: ASYNC251 - the loop must lag behind the journal's thread
            await anyio.lowlevel.checkpoint()

    async with SqliteJournal.open(tmp_path) as journal:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(be_busy)
            for number in range(24):
                tasks.start_soon(end_after_writes, number)
        assert await journal.entries() == []
