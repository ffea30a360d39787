"""Rules of an item's life that only show after the item is thought to be over."""

import pytest
from fakes import World, an_item, running, until

pytestmark = pytest.mark.anyio


async def test_an_item_whose_claim_was_lost_is_not_launched_later_either():
    world = World()
    lost, next_one = an_item(1), an_item(2)
    world.service.refused_acks.add(lost.id)
    world.service.push(lost, next_one)
    async with running(world.agent()) as agent:
        await until(lambda: next_one.run_id in world.runner.orders)
        await world.finish(next_one.run_id)
        await until(lambda: agent.view().ended == {"let_go": 1, "succeeded": 1})
    assert list(world.runner.orders) == [next_one.run_id]
    assert not world.service.failed
    assert not world.service.uploads
