"""How queues are looked into: few requests, never more than there is room for, quiet when asked."""

from collections import Counter
from collections.abc import Sequence

import anyio
import pytest
from fakes import World, an_item, config_of, queue_ref, running, until

from launch_async.agent.admission import Admission
from launch_async.agent.limits import limits_of, pace_of
from launch_async.agent.polled import ANSWERS_OWED, Pace, PolledQueue
from launch_async.agent.poller import MAX_WIDTH, Poller
from launch_async.domain.errors import Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.ports.queue import Popped

pytestmark = pytest.mark.anyio

PACE = Pace(poll=1.0, poll_max=4.0)


def test_an_idle_queue_rests_longer_and_longer_and_is_quick_again_after_work():
    async def scenario() -> None:
        queue = PolledQueue(queue_ref())
        rests: list[float] = []
        for items in (0, 0, 0, 0, 0, 1, 0):
            queue.answered(items, of=1, pace=PACE)
            rests.append(round(queue.interval_seconds, 2))
        assert rests == [1.0, 1.5, 2.25, 3.38, 4.0, 0.0, 1.0]

    anyio.run(scenario)


def test_a_queue_that_gives_all_it_is_asked_for_is_asked_for_more():
    async def scenario() -> None:
        queue = PolledQueue(queue_ref())
        asked: list[int] = []
        for _ in range(6):
            asked.append(queue.appetite)
            queue.answered(queue.appetite, of=queue.appetite, pace=PACE)
        assert asked == [1, 2, 4, 8, 16, 16]
        queue.answered(3, of=16, pace=PACE)
        assert queue.appetite == 1
        assert queue.interval_seconds == PACE.poll, "its end was seen"

    anyio.run(scenario)


def test_jitter_never_makes_a_pause_longer():
    jittered = [PACE.jittered().poll_max for _ in range(100)]
    assert max(jittered) <= PACE.poll_max
    assert min(jittered) >= 0.8 * PACE.poll_max
    assert len(set(jittered)) > 90


async def test_500_idle_queues_are_polled_in_few_requests_and_equally_often():
    world = World()
    names = [f"n{number}" for number in range(500)]
    config = config_of(dict.fromkeys(names, -1), poll=0.5, poll_max=0.5)
    agent = world.agent(config=config)
    async with running(agent):
        await until(lambda: all(q.polls.get("empty", 0) >= 4 for q in agent.view().queues))
        looks = Counter(name for request in world.service.pops for name in request)
        assert max(map(len, world.service.pops)) == MAX_WIDTH
        assert looks.total() / len(world.service.pops) > MAX_WIDTH / 2
        assert max(looks.values()) - min(looks.values()) <= 2, "none waits for the others"


async def test_no_more_is_popped_than_there_is_room_for():
    world = World()
    world.builder.hang = True
    world.service.push(*(an_item(number) for number in range(20)))
    async with running(world.agent(config=config_of({"q": -1}, waiting=3))):
        await until(lambda: len(world.service.acks) == 3)
        beats = len(world.service.statuses)
        await until(lambda: len(world.service.statuses) > beats + 3)
        assert len(world.service.pending["q"]) == 17
        assert len(world.service.acks) == 3


async def test_a_launched_item_makes_way_for_the_next_one():
    world = World()
    world.service.push(*(an_item(number) for number in range(20)))
    async with running(world.agent(config=config_of({"q": -1}, waiting=1))):
        await until(lambda: len(world.runner.orders) == 20)


async def test_a_backlog_is_taken_in_order():
    world = World()
    world.service.push(*(an_item(number) for number in range(40)))
    async with running(world.agent()):
        await until(lambda: len(world.service.acks) == 40)
    assert [item_id for item_id, _ in world.service.acks] == [f"q-{n}" for n in range(40)]
    assert len(world.service.pops) < 12


async def test_a_service_that_asks_for_quiet_gets_it_from_all_queues():
    world = World()
    world.service.plant("pop", Unavailable("slow down", retry_after_seconds=30.0))
    async with running(world.agent(limits={"q": -1})) as agent:
        await until(lambda: world.service.pops)
        await agent.reload(config_of({"q": -1, "r": -1}))
        await until(lambda: len(world.service.statuses) > 10)
        assert len(world.service.pops) == 1
        explained = agent.explain("q")
        assert explained is not None
        assert explained.state == "not answering"
        assert "slow down" in explained.reasons[0]


async def test_a_sick_queue_is_named_and_the_others_go_on():
    world = World()
    world.service.sick_queues = {"bad"}
    world.service.push(*(an_item(number, "good") for number in range(5)))
    async with running(world.agent(limits={"bad": -1, "good": -1})) as agent:
        await until(lambda: len(world.runner.orders) == 5)
        polls = {queue.name: queue.polls for queue in agent.view().queues}
        assert polls["bad"].keys() == {"error"}
        assert "error" not in polls["good"]
        world.service.sick_queues.clear()
        world.service.push(an_item(9, "bad"))
        await until(lambda: len(world.runner.orders) == 6)


async def test_a_queue_that_breaks_whole_requests_breaks_one_and_is_asked_alone_from_then_on():
    world = World()
    names = [f"n{number}" for number in range(8)]
    bad = "n3"
    plain = world.service.pop

    async def pop(queues: Sequence[QueueRef]) -> Sequence[Popped]:
        answers = await plain(queues)
        if queue_ref(bad) in queues:
            raise Unavailable("no answer in time")
        return answers

    world.service.pop = pop  # type: ignore[method-assign]
    async with running(world.agent(limits=dict.fromkeys(names, -1))) as agent:
        await until(lambda: any(q.polls.get("error", 0) > 5 for q in agent.view().queues))
        polls = {queue.name: queue.polls for queue in agent.view().queues}
    broken = [request for request in world.service.pops if bad in request]
    assert [sorted(request) for request in broken if request != [bad]] == [names]
    others = set(names) - {bad}
    assert [polls[name].get("error") for name in others] == [1] * 7
    assert any(set(request) == others for request in world.service.pops), "they are together again"


async def test_a_queue_that_is_well_again_gets_company_again():
    world = World()
    plain = world.service.pop
    failures = iter(range(2))

    async def pop(queues: Sequence[QueueRef]) -> Sequence[Popped]:
        answers = await plain(queues)
        if queue_ref("bad") in queues and next(failures, None) is not None:
            raise Unavailable("no answer in time")
        return answers

    world.service.pop = pop  # type: ignore[method-assign]
    async with running(world.agent(limits={"bad": -1, "good": -1})):
        await until(
            lambda: sum(set(request) == {"bad", "good"} for request in world.service.pops) > 5
        )
    bad = [request for request in world.service.pops if "bad" in request]
    company = [len(set(request)) for request in bad]
    assert company[: 2 + ANSWERS_OWED] == [2] + [1] * (1 + ANSWERS_OWED)


async def test_a_service_that_takes_few_looks_at_once_is_asked_for_few():
    world = World()
    most = 10
    names = [f"n{number}" for number in range(60)]
    plain = world.service.pop
    refused = 0

    async def pop(queues: Sequence[QueueRef]) -> Sequence[Popped]:
        nonlocal refused
        answers = await plain(queues)
        if len(queues) > most:
            refused += 1
            raise Unavailable("the look was refused: too many fields")
        return answers

    world.service.pop = pop  # type: ignore[method-assign]
    async with running(world.agent(limits=dict.fromkeys(names, -1))) as agent:
        await until(lambda: all(q.polls.get("empty", 0) > 20 for q in agent.view().queues))
        looks = [queue.polls["empty"] for queue in agent.view().queues]
    taken = len(world.service.pops) - refused
    assert refused < taken / 4
    assert sum(looks) / taken > 2, "they are not asked one by one"
    assert max(looks) - min(looks) <= 6, "none waits for the others"


async def test_what_comes_late_from_a_sick_queue_breaks_no_limit():
    world = World()
    plain = world.service.pop
    asked: list[str] = []
    taken, late = anyio.Event(), anyio.Event()

    async def pop(queues: Sequence[QueueRef]) -> Sequence[Popped]:
        asked.append(queues[0].name)
        if queues[0].name == "good":
            return await plain(queues)
        if asked.count("sick") == 1:
            raise Unavailable("no answer in time")
        await taken.wait()
        late.set()
        return [an_item(1, "sick")]

    world.service.pop = pop  # type: ignore[method-assign]
    async with running(world.agent(limits={"sick": -1, "good": -1}, max_jobs=1)) as agent:
        await until(lambda: asked.count("sick") == 2)
        world.service.push(an_item(1, "good"))
        await until(lambda: world.runner.orders)
        taken.set()
        await late.wait()
        await until(lambda: not agent.view().looks)
        assert [order.item_id for order in world.runner.orders.values()] == ["good-1"]
        assert [item.id for item in agent.view().items] == ["good-1"]


async def test_a_request_that_hangs_does_not_hold_up_the_others():
    world = World()
    plain = world.service.pop
    hung = anyio.Event()

    async def pop(queues: Sequence[QueueRef]) -> Sequence[Popped]:
        if not hung.is_set():
            hung.set()
            await anyio.sleep_forever()
        return await plain(queues)

    world.service.pop = pop  # type: ignore[method-assign]
    agent = world.agent(limits={"a": -1}, max_jobs=5)
    async with running(agent):
        await hung.wait()
        await agent.reload(config_of({"a": -1, "b": -1}, max_jobs=5))
        world.service.push(an_item(1, "b"))
        await until(lambda: world.runner.orders)


async def test_a_hint_makes_a_look_sooner():
    world = World()
    config = config_of({"q": -1}, poll=300.0, poll_max=300.0)
    hinted = anyio.Event()

    class Hints:
        async def next(self, queues: Sequence[QueueRef]) -> Sequence[QueueRef]:
            await hinted.wait()
            if not world.service.pending["q"]:
                await anyio.sleep_forever()
            return queues

    agent = world.agent(config=config)
    table = agent._tools.table
    limits = limits_of(config, entity="me", project="model-registry")
    taken: list[str] = []
    poller = Poller(
        service=world.service,
        admission=Admission(table, limits),
        table=table,
        hand_over=lambda tracked: taken.append(tracked.item.id),
        pace=pace_of(config),
        hints=Hints(),
    )
    poller.follow(limits.queues)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller.run)
            await until(lambda: poller.queues[queue_ref()].polls["empty"] == 1)
            world.service.push(an_item(1))
            hinted.set()
            await until(lambda: taken)
            tasks.cancel_scope.cancel()
