"""What an agent shows of its items, however many there are."""

from pathlib import Path

import anyio
import msgspec
import pytest
from fakes import World, an_item, running, until

from launch_async.agent.views import item_page
from launch_async.kit.durations import BOUNDS_SECONDS

pytestmark = pytest.mark.anyio


async def test_items_are_shown_by_queue_and_phase_the_oldest_first():
    world = World()
    world.service.push(an_item(1), an_item(2))
    agent = world.agent(limits={"q": -1, "b": -1})
    async with running(agent):
        await until(lambda: len(world.runner.alive) == 2)
        world.runner.look_seconds = 60.0
        world.service.push(an_item(3, "b"))
        await until(lambda: len(world.runner.alive) == 3)
        await until(lambda: agent.view().phases == {"q": {"running": 2}, "b": {"running": 1}})
        table = agent._tools.table
        newest = table.get("b-3")
        launched = msgspec.structs.replace(newest.entry.launched, monotonic=0.0)
        newest.entry = msgspec.structs.replace(newest.entry, launched=launched)
        page = item_page(table, most=1)
        assert (page.open, page.matching, [item.id for item in page.items]) == (3, 3, ["b-3"])
        page = agent.items(queue="q", phase="running", most=10)
        assert (page.matching, {item.id for item in page.items}) == (2, {"q-1", "q-2"})
        assert agent.items(queue="q", phase="preparing", most=10).matching == 0
        assert agent.item("q-1").phase == "running"
        assert agent.item("q-9") is None
        assert len(agent.view(items=2).items) == 2


async def test_a_run_is_as_old_after_a_restart_as_before():
    world = World()
    world.service.push(an_item(1))
    async with running(world.agent()) as first:
        await until(lambda: first.view().launched)
    (entry,) = world.journal.kept.values()
    launched = msgspec.structs.replace(entry.launched, monotonic=entry.launched.monotonic - 90.0)
    world.journal.kept[entry.item.id] = msgspec.structs.replace(entry, launched=launched)
    async with running(world.agent()) as second:
        await until(lambda: second.view().items)
        assert second.view().items[0].seconds_in_phase >= 90.0
        assert second.explain("q-1").seconds >= 90.0


async def test_a_run_that_was_asked_to_stop_shows_it():
    world = World()
    world.stop_grace_seconds = 3600.0
    world.service.push(an_item(1))
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().phases == {"q": {"running": 1}})
        await until(lambda: agent.item("q-1").detail == "running")
        await agent.cancel("q-1")
        assert agent.item("q-1").detail == "stop requested"


async def test_what_has_ended_is_counted_no_more_and_its_phases_were_timed():
    world = World()
    world.service.push(an_item(1))
    agent = world.agent()
    async with running(agent):
        await until(lambda: world.runner.alive)
        await world.finish("runq1")
        await until(lambda: not agent.view().items)
        view = agent.view()
        assert view.phases == {}
        assert view.recovered
        for phase in ("leased", "claiming", "preparing", "launching", "running", "reporting"):
            assert view.durations[phase].buckets[-1] == 1
            assert len(view.durations[phase].buckets) == len(BOUNDS_SECONDS) + 1


async def test_the_log_of_an_item_without_a_run_is_that_of_its_build(tmp_path: Path):
    world = World()
    world.builder.hang, world.builder.printed = True, tmp_path / "la-1.log"
    world.service.push(an_item(1))
    agent = world.agent()
    async with running(agent):
        await until(world.builder.building.is_set)
        assert await agent.log_tail("q-1", lines=5) == ()
        world.builder.printed.write_text("#1 one\n#2 two\n#2 thr")
        assert await agent.log_tail("q-1", lines=2) == ("#2 two", "#2 thr")


async def test_a_log_is_read_and_followed_by_the_items_id(tmp_path: Path):
    world = World()
    world.builder.hang = True
    world.service.push(an_item(1))
    agent = world.agent()
    async with running(agent):
        await until(world.builder.building.is_set)
        assert await agent.log_tail("q-1", lines=5) == ()
    world.builder.hang = False
    world.builder.printed = tmp_path / "not there"
    agent = world.agent()
    async with running(agent):
        await until(lambda: world.runner.alive)
        await until(lambda: agent.view().phases == {"q": {"running": 1}})
        assert await agent.log_tail("q-1", lines=1) == ("last line",)
        assert await agent.log_tail("q-9", lines=1) == ()
        assert [piece async for piece in agent.logs("q-9")] == []
        pieces = aiter(agent.logs("q-1"))
        assert await anext(pieces) == b"first\n"
        await world.finish("runq1")
        assert [piece async for piece in pieces] == [b"last line\n"]


async def test_a_queue_that_does_not_answer_shows_why_until_it_does():
    world = World()
    world.service.sick_queues.add("q")
    async with running(world.agent(limits={"q": -1, "b": -1})) as agent:
        faults = {"q": "q is sick", "b": ""}
        await until(lambda: {queue.name: queue.fault for queue in agent.view().queues} == faults)
        world.service.sick_queues.clear()
        await until(lambda: not any(queue.fault for queue in agent.view().queues))


async def test_a_look_that_hangs_fills_other_queues_and_not_its_own():
    world = World()

    async def hang(queues: object) -> list[None]:
        await anyio.sleep_forever()
        return []

    world.service.pop = hang
    async with running(world.agent(limits={"q": -1, "b": -1}, max_jobs=1)) as agent:
        await until(lambda: agent.view().looks)
        missing = sorted(queue.missing for queue in agent.view().queues)
        assert missing == [(), ("max_jobs is 1 and 0 are in use, 1 kept for looks under way",)]
