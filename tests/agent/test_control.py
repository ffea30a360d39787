"""Steering a running agent: drain, pause, cancel, reload and explain."""

import msgspec
import pytest
from fakes import World, an_item, config_of, running, until

from launch_async.config.model import LaunchConfig, QueueConfig, TargetConfig
from launch_async.domain.errors import AgentUnfit, ConfigError, Reason, Unavailable
from launch_async.domain.phase import Phase
from launch_async.ports.control import AgentControl

pytestmark = pytest.mark.anyio

BOTH = {"q": -1, "r": -1}
LONG = 3600.0


def changed(config: LaunchConfig, **fields: object) -> LaunchConfig:
    return msgspec.structs.replace(config, **fields)


def of_agent(config: LaunchConfig, **fields: object) -> LaunchConfig:
    return changed(config, agent=msgspec.structs.replace(config.agent, **fields))


async def test_a_drained_agent_takes_nothing_new_and_ends_with_its_items():
    world = World()
    world.service.push(an_item(1))
    agent = world.agent()
    async with running(agent) as control:
        await until(lambda: world.runner.orders)
        control.drain()
        control.drain()
        await until(lambda: not agent.view().looks)
        world.service.push(an_item(2))
        assert agent.view().state == "stopping"
        explained = agent.explain("q")
        assert explained is not None
        assert (explained.state, explained.reasons) == ("not polled", ("the agent is stopping",))
        await world.finish("runq1")
        await until(lambda: world.service.statuses[-1].value == "KILLED")
    assert len(world.service.pending["q"]) == 1
    assert not world.journal.kept


async def test_a_drain_waits_longer_than_the_grace_and_shows_that_it_does():
    world = World()
    world.service.push(an_item(1))
    agent = world.agent(grace_seconds=0.0)
    async with running(agent):
        await until(lambda: world.runner.orders)
        agent.drain()
        beats = len(world.service.statuses)
        await until(lambda: len(world.service.statuses) > beats + 3)
        view = agent.view()
        assert (view.state, view.lets_go_in_seconds, len(view.items)) == ("stopping", None, 1)
        await world.finish("runq1")
        await until(lambda: world.service.statuses[-1].value == "KILLED")
    assert agent.view().ended == {"succeeded": 1}


async def test_a_drain_with_a_timeout_lets_go_after_it_and_the_last_one_counts():
    world = World()
    world.service.push(an_item(1))
    agent = world.agent(grace_seconds=LONG)
    async with running(agent):
        await until(lambda: agent.view().launched)
        agent.drain(timeout_seconds=LONG)
        agent.drain(timeout_seconds=2 * LONG)
        left = agent.view().lets_go_in_seconds
        assert left is not None
        assert LONG < left <= 2 * LONG
        agent.drain(timeout_seconds=0)
        await until(lambda: world.service.statuses[-1].value == "KILLED")
    assert world.runner.alive
    assert len(world.journal.kept) == 1


@pytest.mark.parametrize("by", ["a signal", "the service"])
async def test_a_stop_in_the_middle_of_a_drain_gives_the_grace(by: str):
    world = World()
    world.service.push(an_item(1))
    agent = world.agent(grace_seconds=LONG)
    async with running(agent):
        await until(lambda: agent.view().launched)
        agent.drain()
        if by == "a signal":
            agent.stop("SIGTERM")
        else:
            world.service.stop_polling = True
        await until(lambda: agent.view().lets_go_in_seconds)
        assert world.runner.alive
        agent.stop("SIGTERM")
        await until(lambda: world.service.statuses[-1].value == "KILLED")
    assert world.runner.alive


async def test_a_paused_queue_gives_nothing_until_it_is_resumed_and_others_go_on():
    world = World()
    async with running(world.agent(limits=BOTH)) as agent:
        await until(lambda: world.service.pops)
        await agent.pause("q")
        await until(lambda: not agent.view().looks)
        world.service.push(an_item(1, "q"), an_item(1, "r"))
        await until(lambda: world.runner.orders)
        await agent.reload(config_of(BOTH, max_jobs=7))
        world.service.push(an_item(2, "r"))
        await until(lambda: len(world.runner.orders) == 2)
        assert len(world.service.pending["q"]) == 1, "a pause outlives a reload"
        explained = agent.explain("q")
        assert explained is not None
        assert (explained.state, explained.reasons) == ("paused", ("the queue is paused by hand",))
        assert explained.seconds is None, "its last look is not when it was paused"
        await agent.resume("q")
        await until(lambda: len(world.runner.orders) == 3)
        with pytest.raises(ConfigError, match="'gone'; it polls q, r"):
            await agent.pause("gone")


async def test_a_queue_may_begin_paused():
    world = World()
    world.service.push(an_item(1, "q"), an_item(1, "r"))
    config = changed(config_of({}), queues=("r", QueueConfig(name="q", paused=True)))
    async with running(world.agent(config=config)) as agent:
        await until(lambda: world.runner.orders)
        assert {queue.name: queue.paused for queue in agent.view().queues} == {
            "q": True,
            "r": False,
        }
        assert len(world.service.pending["q"]) == 1
        await agent.resume("q")
        await until(lambda: len(world.runner.orders) == 2)


async def test_an_item_that_is_being_prepared_can_be_cancelled():
    world = World()
    world.builder.hang = True
    world.service.push(an_item(1))
    async with running(world.agent()) as agent:
        await world.builder.building.wait()
        assert await agent.cancel("q-1")
        await until(lambda: world.service.failed)
    assert world.service.failed[an_item(1).id][0].reason is Reason.STOPPED
    assert not world.runner.orders


async def test_an_item_that_waits_for_a_build_slot_can_be_cancelled():
    world = World()
    world.builder.hang = True
    world.service.push(*(an_item(number) for number in (1, 2, 3)))
    async with running(world.agent()) as agent:
        full = ["building", "building", "waiting for a build slot"]
        await until(lambda: sorted(item.detail for item in agent.view().items) == full)
        waiting = next(i.id for i in agent.view().items if "build slot" in i.detail)
        explained = agent.explain(waiting)
        assert explained is not None
        assert explained.reasons == (
            "agent.builds is 2 and 2 are in use",
            "waiting for a build slot",
        )
        assert await agent.cancel(waiting)
        await until(lambda: waiting in world.service.failed)
        assert len(agent.view().items) == 2


async def test_an_item_whose_claim_is_not_answered_can_be_cancelled():
    world = World()
    world.service.plant("ack", *(Unavailable("no answer") for _ in range(3)))
    world.service.push(an_item(1))
    async with running(world.agent()) as agent:
        await until(lambda: agent.view().items)
        assert await agent.cancel("q-1")
        await until(lambda: world.service.failed)
    assert not world.runner.orders


async def test_a_running_item_is_cancelled_and_an_ended_one_is_not():
    world = World()
    world.service.push(an_item(1))
    async with running(world.agent()) as agent:
        await until(lambda: [item.phase for item in agent.view().items] == [Phase.RUNNING])
        assert await agent.cancel("q-1")
        await until(lambda: not agent.view().items)
        assert world.runner.cancelled == ["runq1"]
        assert not await agent.cancel("q-1")
        assert agent.explain("q-1") is None


async def test_limits_change_without_overshoot_and_without_killing():
    world = World()
    world.service.push(*(an_item(number) for number in range(120)))
    config = config_of({"q": -1}, max_jobs=100)
    async with running(world.agent(config=config)) as agent:
        await until(lambda: len(world.runner.alive) == 100)
        assert await agent.reload(changed(config, max_jobs=10)) == ["max_jobs: 100 -> 10"]
        for ended in range(95):
            await world.finish(f"runq{ended}")
        await until(lambda: len(world.runner.alive) == 10)
        beats = len(world.service.statuses)
        await until(lambda: len(world.service.statuses) > beats + 3)
        assert len(world.runner.orders) == 105
        assert not world.runner.cancelled
        await agent.reload(config)
        await until(lambda: len(world.runner.orders) == 120)
        assert agent.view().drift == 0


async def test_every_kind_of_limit_is_reloaded():
    world = World()
    config = config_of({"q": 1})
    world.service.push(*(an_item(number) for number in range(9)))
    async with running(world.agent(config=config)) as agent:
        for other, slots in (
            (config, 1),
            (changed(config, queues=(QueueConfig(name="q", max_jobs=3),)), 3),
            (
                of_agent(
                    changed(config, queues=("q",)), targets={"fake": TargetConfig(max_jobs=5)}
                ),
                5,
            ),
            (changed(config, queues=("q",)), 9),
        ):
            await agent.reload(other)
            await until(lambda slots=slots: len(world.runner.alive) == slots)
            shown = {view.name: view for view in agent.view().limits}
            assert shown["jobs"].used == slots
        assert "target/fake" not in shown


async def test_queues_come_and_go_with_a_reload():
    world = World()
    async with running(world.agent(limits={"q": -1})) as agent:
        await until(lambda: world.service.pops)
        world.service.push(an_item(1, "q"), an_item(1, "r"))
        await until(lambda: world.runner.orders)
        said = await agent.reload(config_of({"r": -1}))
        assert said == ["queue q removed: its open items go on", "queue r added"]
        assert world.service.followed == [["r"]]
        await until(lambda: len(world.runner.orders) == 2)
        world.service.push(an_item(2, "q"), an_item(2, "r"))
        await until(lambda: len(world.runner.orders) == 3)
        await world.finish("runq1")
        await until(lambda: len(agent.view().items) == 2)
    assert len(world.service.pending["q"]) == 1


async def test_a_reload_that_cannot_be_done_changes_nothing():
    world = World()
    async with running(world.agent(limits={"q": -1})) as agent:
        await until(lambda: world.service.pops)
        world.service.plant("follow", AgentUnfit("no queue gone in the entity me"))
        with pytest.raises(ConfigError, match="no queue gone"):
            await agent.reload(config_of({"gone": -1}, max_jobs=3))
        with pytest.raises(ConfigError, match="names no queue"):
            await agent.reload(config_of({}))
        view = agent.view()
        assert ([queue.name for queue in view.queues], view.max_jobs) == (["q"], -1)
        world.service.push(an_item(1))
        await until(lambda: world.runner.orders)


async def test_what_only_the_next_start_changes_is_said_each_time():
    world = World()
    config = config_of({"q": -1})
    async with running(world.agent(config=config)) as agent:
        await until(lambda: world.service.pops)
        other = changed(of_agent(config, state_dir="/elsewhere", grace=5.0), entity="them")
        for grace in (["agent.grace: 30.0 -> 5.0"], []):
            said = await agent.reload(other)
            assert [text for text in said if "next start" not in text] == grace
            assert [text.split(":")[0] for text in said if "next start" in text] == [
                "agent.state_dir",
                "entity",
            ]


async def test_the_configuration_is_read_again_when_none_is_given():
    world = World()
    config = config_of({"q": -1})
    async with running(world.agent(config=config)) as agent:
        control: AgentControl = agent
        with pytest.raises(ConfigError, match="restart it"):
            await control.reload()
        agent._read_config = lambda: changed(config, max_schedulers=4)
        assert await control.reload() == ["max_schedulers: 1 -> 4"]


async def test_a_queue_without_room_says_which_limit_holds_it():
    world = World()
    world.service.push(an_item(1), an_item(2))
    async with running(world.agent(max_jobs=1)) as agent:
        await until(lambda: world.runner.orders)
        explained = agent.explain("q")
        assert explained is not None
        assert explained.state == "waiting for room"
        assert explained.reasons == ("max_jobs is 1 and 1 are in use",)
        assert agent.explain("gone") is None


async def test_an_agent_that_has_not_registered_says_so_of_its_queues():
    world = World()
    world.service.plant("register", *[Unavailable("no answer")] * 1000)
    async with running(world.agent()) as agent:
        await until(lambda: len(world.service.faults["register"]) < 999)
        explained = agent.explain("q")
        assert explained is not None
        assert explained.state == "not polled yet"
        assert explained.reasons == ("the agent has not registered yet",)


async def test_an_item_behind_another_one_of_its_run_names_it():
    world = World()
    first = an_item(1)
    second = msgspec.structs.replace(an_item(2), run_id=first.run_id)
    world.service.push(first)
    agent = world.agent()
    async with running(agent):
        await until(lambda: world.runner.orders)
        table = agent._tools.table
        assert table.admit(second) is not None
        explained = agent.explain(second.id)
        assert explained is not None
        assert explained.reasons == (f"its run id {first.run_id} is in use by the item {first.id}",)
