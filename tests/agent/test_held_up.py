"""A backend that does not answer holds up items of its own queues, and nobody else's."""

import anyio
import pytest
from fakes import FakeRunner, World, an_item, running, until

from launch_async.domain.errors import Unavailable
from launch_async.domain.run import RunHandle
from launch_async.ports.runner import LaunchOrder

pytestmark = pytest.mark.anyio

WAITING = 4
WELL = 30


class HalfSick(FakeRunner):
    """It has two clusters, of which one refuses all calls or gives no answer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.tried: set[str] = set()

    async def launch(self, order: LaunchOrder) -> RunHandle:
        if order.item_id.startswith("sick") and self.how != "well":
            self.tried.add(order.item_id)
            if self.how == "hangs":
                await anyio.sleep_forever()
            raise Unavailable("its cluster is away")
        return await super().launch(order)


def a_world(how: str, sick: int) -> World:
    world = World()
    world.runner = HalfSick(how)
    world.patience_seconds = 3600.0
    world.section = {"waiting": WAITING}
    world.service.push(*(an_item(number, "sick") for number in range(sick)))
    return world


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_a_deep_queue_of_a_sick_backend_leaves_the_places_to_others(how: str):
    world = a_world(how, sick=50)
    world.service.push(*(an_item(number, "well") for number in range(WELL)))
    async with running(world.agent(limits={"sick": -1, "well": -1})) as agent:
        await until(lambda: agent.view().launched == WELL)
        assert len(world.runner.tried) <= WAITING, "of its own queue no more is taken"
        assert agent._tools.table.audit() == 0


async def test_what_was_held_up_is_launched_once_when_its_backend_is_back():
    world = a_world("refuses", sick=10)
    async with running(world.agent(limits={"sick": -1, "well": -1})) as agent:
        await until(lambda: len(world.runner.tried) == WAITING)
        await until(lambda: agent.view().queues[0].missing)
        queue = agent.view().queues[0]
        assert "agent.waiting" in str(queue.missing)
        world.runner.how = "well"
        await until(lambda: agent.view().launched == 10)
    assert set(world.runner.launches.values()) == {1}
