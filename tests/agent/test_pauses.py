"""Pauses by hand outlive the agent; those of the settings are the settings' own."""

from pathlib import Path

import msgspec
import pytest
from fakes import World, an_item, config_of, running, until
from structlog.testing import capture_logs

from launch_async.adapters.journals.pauses import PauseFile
from launch_async.agent.agent import Agent
from launch_async.config.model import QueueConfig
from launch_async.domain.errors import AgentUnfit, LaunchError

pytestmark = pytest.mark.anyio

BOTH = {"q": -1, "r": -1}
FILE = "paused-queues.json"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World()
    world.pauses = PauseFile(tmp_path)
    return world


def paused(agent: Agent) -> dict[str, tuple[bool, bool]]:
    return {queue.name: (queue.paused, queue.paused_by_hand) for queue in agent.view().queues}


async def test_a_pause_by_hand_is_there_after_a_restart_until_it_is_lifted(world: World):
    async with running(world.agent(limits=BOTH)) as agent:
        await agent.pause("q")
    world.service.push(an_item(1, "q"), an_item(1, "r"))
    with capture_logs() as logs:
        async with running(world.agent(limits=BOTH)) as agent:
            await until(lambda: world.runner.orders)
            assert paused(agent) == {"q": (True, True), "r": (False, False)}
            assert len(world.service.pending["q"]) == 1
            explained = agent.explain("q")
            assert explained is not None
            assert explained.reasons == ("the queue is paused by hand",)
            await agent.resume("q")
            await until(lambda: len(world.runner.orders) == 2)
    said = [line for line in logs if "since an earlier life" in line["event"]]
    assert [(line["queue"], line["hint"]) for line in said] == [
        ("q", "launch-async agent resume q")
    ]
    async with running(world.agent(limits=BOTH)) as agent:
        assert paused(agent) == {"q": (False, False), "r": (False, False)}


async def test_a_resume_lifts_the_pause_of_a_setting_for_this_life_alone(world: World):
    config = msgspec.structs.replace(config_of({}), queues=(QueueConfig(name="q", paused=True),))
    async with running(world.agent(config=config)) as agent:
        assert paused(agent) == {"q": (True, False)}
        await until(lambda: agent.view().name)
        explained = agent.explain("q")
        assert explained is not None
        assert explained.reasons == ("the queue is paused by its setting `paused`",)
        await agent.resume("q")
        assert paused(agent) == {"q": (False, False)}
    async with running(world.agent(config=config)) as agent:
        assert paused(agent) == {"q": (True, False)}


async def test_a_pause_waits_for_its_queue_to_be_polled_again(world: World):
    async with running(world.agent(limits=BOTH)) as agent:
        await agent.pause("q")
        await until(lambda: agent.view().name)
        await agent.reload(config_of({"r": -1}))
        assert paused(agent) == {"r": (False, False)}
        await agent.pause("r")
    async with running(world.agent(limits=BOTH)) as agent:
        assert paused(agent) == {"q": (True, True), "r": (True, True)}


async def test_a_pause_that_cannot_be_kept_holds_and_says_so(world: World, tmp_path: Path):
    (tmp_path / f"{FILE}.new").mkdir()  # where it is written first
    async with running(world.agent(limits=BOTH)) as agent:
        with pytest.raises(LaunchError, match=f"holds until the agent ends.*{FILE}"):
            await agent.pause("q")
        assert paused(agent)["q"] == (True, True)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'["q"]', b'{"q": true}'])
def test_a_file_that_says_nothing_clear_stops_the_start(
    content: bytes, world: World, tmp_path: Path
):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(AgentUnfit, match=f"{FILE}.*Delete it to start"):
        world.agent(limits=BOTH)


async def test_the_file_is_the_agents_users_alone(world: World, tmp_path: Path):
    async with running(world.agent(limits=BOTH)) as agent:
        await agent.pause("q")
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
