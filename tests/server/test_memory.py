"""What was read a moment ago is used again, but never past a change."""

import pytest
from server_harness import Server
from sqlalchemy import text

from launch_async.server.store.memory import KEPT_SECONDS, MAX_KEPT, Memory


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_value_is_kept_for_a_moment_only() -> None:
    clock = Clock()
    memory: Memory[int] = Memory(clock=clock)
    memory.keep("a", 1, edition=memory.edition)
    assert memory.find("a") == 1
    clock.now += KEPT_SECONDS
    assert memory.find("a") is None


def test_a_write_ends_all_that_was_kept() -> None:
    memory: Memory[int] = Memory()
    memory.keep("a", 1, edition=memory.edition)
    memory.forget()
    assert memory.find("a") is None


def test_what_was_read_before_a_write_is_not_kept_after_it() -> None:
    memory: Memory[int] = Memory()
    before = memory.edition
    memory.forget()
    memory.keep("a", 1, edition=before)
    assert memory.find("a") is None


def test_a_memory_has_an_end() -> None:
    memory: Memory[int] = Memory()
    for number in range(MAX_KEPT + 1):
        memory.keep(str(number), number, edition=memory.edition)
    assert memory.find("0") is None
    assert memory.find(str(MAX_KEPT)) == MAX_KEPT


@pytest.mark.anyio
@pytest.mark.parametrize("fails", [False, True])
async def test_each_write_of_a_store_empties_its_memory(server: Server, *, fails: bool) -> None:
    store = server.services.store
    store.memory.keep("a", 1, edition=store.memory.edition)
    try:
        async with store.write() as connection:
            await connection.execute(text("select 1"))
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert store.memory.find("a") is None
