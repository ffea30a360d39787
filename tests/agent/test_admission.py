"""Who may look, and when: no limit is ever exceeded, and slots are shared by weight."""

import random
from collections import Counter
from collections.abc import Mapping

import anyio
import pytest
from fakes import FakeJournal, an_item, queue_ref
from hypothesis import given, settings
from hypothesis import strategies as st

from launch_async.agent.admission import Admission, Look
from launch_async.agent.limits import Limits, QueueLimit
from launch_async.agent.table import Kind, Table, Tracked, Use
from launch_async.domain.ids import QueueRef
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase

pytestmark = pytest.mark.anyio

QUEUES = ("a", "b", "c")
TARGETS = ("cpu", "gpu")
LAUNCHING = (Phase.CLAIMING, Phase.PREPARING, Phase.LAUNCHING, Phase.RUNNING)
ENDED = Outcome(failed=False, message="")

limit = st.sampled_from((-1, 0, 1, 2, 5))
all_limits = st.builds(
    lambda jobs, schedulers, waiting, queues, targets: Limits(
        queues={
            queue_ref(name): QueueLimit(queue_ref(name), queues[name]) for name in sorted(queues)
        },
        max_jobs=jobs,
        max_schedulers=schedulers,
        waiting=waiting,
        targets=targets,
    ),
    limit,
    limit,
    st.integers(1, 4),
    st.dictionaries(st.sampled_from(QUEUES), limit, min_size=1),
    st.dictionaries(st.sampled_from(TARGETS), limit),
)
number = st.integers(0, 9)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("look"), st.dictionaries(st.sampled_from(QUEUES), st.integers(1, 4))),
        st.tuples(st.just("nothing"), number),
        st.tuples(st.just("item"), st.tuples(number, st.sampled_from(TARGETS), st.booleans())),
        st.tuples(st.just("launch"), number),
        st.tuples(st.just("end"), number),
        st.tuples(st.just("reload"), all_limits),
        st.tuples(st.just("pause"), st.sampled_from(QUEUES)),
    ),
    max_size=60,
)


class Simulation:
    """Admission and a table, driven step by step and counted by its own rules."""

    def __init__(self, limits: Limits) -> None:
        self.table = Table(FakeJournal())
        self.admission = Admission(self.table, limits)
        self.looks: list[Look] = []
        self.made = 0

    def used(self) -> Counter[str]:
        count: Counter[str] = Counter()
        for tracked in self.table:
            item, phase = tracked.item, tracked.entry.phase
            count["waiting"] += phase in (Phase.LEASED, *LAUNCHING[:-1])
            if item.spec.scheduler:
                count["schedulers"] += 1
            else:
                count["jobs"] += 1
                count[item.queue.name] += 1
                count[item.spec.resource] += 1
        return count

    def limits(self) -> dict[str, int]:
        now = self.admission.limits
        return {
            "jobs": now.max_jobs,
            "schedulers": now.max_schedulers,
            "waiting": now.waiting,
            **{ref.name: queue.max_jobs for ref, queue in now.queues.items()},
            **now.targets,
        }

    async def step(self, what: str, value: object) -> None:
        match what, value:
            case "look", dict():
                known = self.admission.limits.queues
                wishes = {
                    queue_ref(name): wish
                    for name, wish in value.items()
                    if queue_ref(name) in known
                }
                self.looks += self.admission.grant(wishes, at_most=5)
            case "nothing", int() if self.looks:
                look = self.looks.pop(value % len(self.looks))
                self.admission.settle(look, found=False)
            case "item", (int() as index, str() as target, bool() as scheduler) if self.looks:
                self.pop(self.looks.pop(index % len(self.looks)), target, scheduler=scheduler)
            case "launch", int() if len(self.table):
                await self.launch(list(self.table)[value % len(self.table)])
            case "end", int() if len(self.table):
                await self.end(list(self.table)[value % len(self.table)])
            case "reload", Limits():
                self.admission.change(value)
            case "pause", str() if queue_ref(value) in self.admission.limits.queues:
                ref = queue_ref(value)
                self.admission.pause(ref, paused=not self.admission.is_paused(ref))
            case _:
                pass

    def pop(self, look: Look, target: str = "cpu", *, scheduler: bool = False) -> Tracked | None:
        self.made += 1
        item = an_item(self.made, look.queue.name, resource=target, scheduler=scheduler)
        tracked = self.table.admit(item) if self.admission.fits(look, item) else None
        self.admission.settle(look, found=tracked is not None)
        return tracked

    async def launch(self, tracked: Tracked) -> None:
        if tracked.entry.phase is not Phase.RUNNING:
            at = tracked.entry.phase
            for phase in LAUNCHING[(LAUNCHING.index(at) + 1) if at in LAUNCHING else 0 :]:
                await self.table.move(tracked, phase)

    async def end(self, tracked: Tracked) -> None:
        await self.launch(tracked)
        await self.table.move(tracked, Phase.REPORTING, outcome=ENDED)
        await self.table.done(tracked, reason="succeeded")


@settings(max_examples=150, deadline=None)
@given(limits=all_limits, steps=steps)
def test_no_limit_is_exceeded_whatever_comes_in_which_order(
    limits: Limits, steps: list[tuple[str, object]]
):
    async def scenario() -> None:
        simulation = Simulation(limits)
        for what, value in steps:
            before = simulation.used()
            await simulation.step(what, value)
            after = simulation.used()
            for name, bound in simulation.limits().items():
                grew = after[name] > before[name]
                assert not grew or bound == -1 or after[name] <= bound, (what, name)
            assert simulation.table.audit() == 0
            looks = len(simulation.looks)
            if what == "look" and looks:
                room = simulation.admission.limits
                assert looks + after["waiting"] <= room.waiting or after == before

    anyio.run(scenario)


def shares(weights: Mapping[str, float], **limits: int) -> Simulation:
    queues = {
        queue_ref(name): QueueLimit(queue_ref(name), -1, weight) for name, weight in weights.items()
    }
    given = {"max_jobs": 4} | limits
    return Simulation(Limits(queues=queues, **given))  # type: ignore[arg-type]


async def served(
    simulation: Simulation, wishes: Mapping[QueueRef, int], items: int
) -> Counter[str]:
    """How many items each queue got while all had more than enough."""
    rng = random.Random(7)  # noqa: S311 - the same each time
    counted: Counter[str] = Counter()
    while counted.total() < items:
        for look in simulation.admission.grant(wishes, at_most=50):
            counted[look.queue.name] += 1
            assert simulation.pop(look) is not None
        await simulation.end(rng.choice(list(simulation.table)))
    return counted


@pytest.mark.parametrize("wish", [1, 4])
async def test_scarce_slots_are_shared_by_weight(wish: int):
    weights = {"a": 3.0, "b": 1.0, "c": 2.0}
    simulation = shares(weights)
    counted = await served(simulation, dict.fromkeys(map(queue_ref, weights), wish), 600)
    for name, weight in weights.items():
        assert counted[name] == pytest.approx(600 * weight / 6, rel=0.1)


async def test_who_was_away_has_no_arrears_to_claim():
    simulation = shares({"a": 1.0, "b": 1.0})
    await served(simulation, {queue_ref("a"): 1}, 300)
    both = await served(simulation, {queue_ref("a"): 1, queue_ref("b"): 1}, 100)
    assert both["a"] == pytest.approx(50, abs=5)


async def test_a_look_that_found_nothing_costs_no_turn():
    simulation = shares({"a": 1.0, "b": 0.1}, max_jobs=1)
    await served(simulation, {queue_ref("a"): 1}, 1)
    for _ in range(3):
        [look] = simulation.admission.grant({queue_ref("a"): 1, queue_ref("b"): 1}, at_most=1)
        assert look.queue.name == "b"
        simulation.admission.settle(look, found=False)


async def test_an_agent_that_stops_grants_no_look():
    simulation = shares({"a": 1.0})
    simulation.admission.close()
    assert not simulation.admission.has_room
    assert not simulation.admission.grant({queue_ref("a"): 1}, at_most=1)


async def test_a_scheduler_does_not_hold_the_slot_that_its_own_items_need():
    simulation = shares({"a": 1.0}, max_jobs=1, max_schedulers=1)
    [look] = simulation.admission.grant({queue_ref("a"): 1}, at_most=9)
    assert simulation.pop(look, scheduler=True) is not None
    [look] = simulation.admission.grant({queue_ref("a"): 1}, at_most=9)
    assert simulation.pop(look, scheduler=True) is None, "one scheduler at a time"
    [look] = simulation.admission.grant({queue_ref("a"): 1}, at_most=9)
    assert simulation.pop(look) is not None
    assert not simulation.admission.grant({queue_ref("a"): 1}, at_most=9)


async def test_a_full_target_keeps_its_queues_from_popping_but_no_others():
    simulation = shares({"a": 1.0, "b": 1.0}, targets={"gpu": 1})  # type: ignore[arg-type]
    [look] = simulation.admission.grant({queue_ref("a"): 1}, at_most=1)
    assert simulation.pop(look, "gpu") is not None
    looks = simulation.admission.grant({queue_ref("a"): 1, queue_ref("b"): 1}, at_most=9)
    assert [look.queue.name for look in looks] == ["b"]
    [reason] = simulation.admission.missing(queue_ref("a"))
    assert reason == "agent.targets.gpu.max_jobs is 1 and 1 are in use"


async def test_an_audit_finds_and_mends_what_is_wrongly_counted():
    simulation = shares({"a": 1.0})
    [look] = simulation.admission.grant({queue_ref("a"): 1}, at_most=1)
    tracked = simulation.pop(look)
    assert tracked is not None
    simulation.table._users[Use(Kind.JOBS)].clear()
    assert simulation.table.audit() == 1
    assert simulation.table.audit() == 0
    assert simulation.table.used(Use(Kind.JOBS)) == 1


async def test_what_a_look_finds_once_the_agent_is_stopping_goes_back_with_its_lease():
    item = an_item()
    limits = Limits(queues={item.queue: QueueLimit(item.queue, -1)}, max_jobs=-1)
    admission = Admission(Table(FakeJournal()), limits)
    (look,) = admission.grant({item.queue: 1}, at_most=1)
    assert admission.fits(look, item)
    admission.close()
    assert not admission.fits(look, item)
