"""The item's state table: which moves are legal, and what can never happen."""

import itertools

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from launch_async.domain.lease import (
    ENDED,
    HELD,
    MOVES,
    RUN_EVENTS,
    EndedBy,
    ItemEvent,
    ItemState,
    move,
    run_event,
)

STRAIGHT = [
    (ItemEvent.POP, ItemState.LEASED),
    (ItemEvent.ACK, ItemState.CLAIMED),
    (ItemEvent.RUN_RUNNING, ItemState.RUNNING),
    (ItemEvent.RUN_FINISHED, ItemState.FINISHED),
]


def test_the_straight_way_leads_to_finished() -> None:
    state: ItemState | None = ItemState.PENDING
    for event, expected in STRAIGHT:
        assert state is not None
        state = move(state, event)
        assert state is expected


def test_a_lapsed_lease_goes_back_to_the_queue() -> None:
    assert move(ItemState.LEASED, ItemEvent.LAPSE) is ItemState.PENDING


@pytest.mark.parametrize("state", [s for s in ItemState if s is not ItemState.PENDING])
def test_only_a_pending_item_is_popped(state: ItemState) -> None:
    assert move(state, ItemEvent.POP) is None


@pytest.mark.parametrize("state", [s for s in ItemState if s is not ItemState.LEASED])
def test_only_a_leased_item_is_acked(state: ItemState) -> None:
    assert move(state, ItemEvent.ACK) is None


@pytest.mark.parametrize("state", [ItemState.PENDING, ItemState.LEASED])
def test_what_nobody_has_claimed_is_cancelled_at_once(state: ItemState) -> None:
    assert move(state, ItemEvent.CANCEL) is ItemState.STOPPED


@pytest.mark.parametrize("state", [s for s in ItemState if s not in {"PENDING", "LEASED"}])
def test_a_claimed_item_ends_by_its_run_or_agent_and_an_end_is_never_cancelled(
    state: ItemState,
) -> None:
    assert move(state, ItemEvent.CANCEL) is None


@pytest.mark.parametrize("state", list(ItemState))
def test_only_a_claim_whose_run_never_spoke_ends_without_its_agent(state: ItemState) -> None:
    expected = ItemState.STOPPED if state is ItemState.CLAIMED else None
    assert move(state, ItemEvent.CANCEL_LOST) is expected


@pytest.mark.parametrize("state", sorted(HELD))
def test_the_holder_may_fail_it(state: ItemState) -> None:
    assert move(state, ItemEvent.FAIL) is ItemState.FAILED


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(sorted(ENDED), sorted(ItemEvent)))
)
def test_an_end_said_by_the_agent_or_a_user_is_final(state: ItemState, event: ItemEvent) -> None:
    assert move(state, event, ended_by=EndedBy.AGENT) is None
    assert move(state, event, ended_by=EndedBy.USER) is None


@pytest.mark.parametrize("state", sorted(ENDED))
def test_a_resumed_run_takes_its_item_along(state: ItemState) -> None:
    assert move(state, ItemEvent.RUN_RUNNING, ended_by=EndedBy.RUN) is ItemState.RUNNING
    assert move(state, ItemEvent.FAIL, ended_by=EndedBy.RUN) is None


def test_every_state_is_reachable() -> None:
    assert {ItemState.PENDING, *MOVES.values()} == set(ItemState)


@pytest.mark.parametrize(
    ("run_state", "stop_requested", "event"),
    [
        ("running", False, ItemEvent.RUN_RUNNING),
        ("running", True, ItemEvent.RUN_RUNNING),
        ("finished", True, ItemEvent.RUN_FINISHED),
        ("failed", False, ItemEvent.RUN_FAILED),
        ("crashed", False, ItemEvent.RUN_FAILED),
        ("killed", False, ItemEvent.RUN_FAILED),
        ("failed", True, ItemEvent.RUN_STOPPED),
        ("killed", True, ItemEvent.RUN_STOPPED),
        ("pending", False, None),
    ],
)
def test_a_run_state_becomes_an_event(
    run_state: str, stop_requested: bool, event: ItemEvent | None
) -> None:
    assert run_event(run_state, stop_requested=stop_requested) is event


class AnyLife(RuleBasedStateMachine):
    """Events in any order: an item never leaves the table's ways."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ItemState.PENDING
        self.ended_by: EndedBy | None = None
        self.acks = 0
        self.lapses = 0
        self.pops = 0

    def happen(self, event: ItemEvent) -> None:
        after = move(self.state, event, ended_by=self.ended_by)
        if after is None:
            return
        self.pops += event is ItemEvent.POP
        self.lapses += event is ItemEvent.LAPSE
        self.acks += event is ItemEvent.ACK
        self.state = after
        self.ended_by = None
        if after in ENDED:
            cancelled = event in {ItemEvent.CANCEL, ItemEvent.CANCEL_LOST}
            self.ended_by = EndedBy.USER if cancelled else EndedBy.AGENT
            self.ended_by = EndedBy.RUN if event in RUN_EVENTS else self.ended_by

    @rule()
    def pop(self) -> None:
        self.happen(ItemEvent.POP)

    @rule()
    def lapse(self) -> None:
        self.happen(ItemEvent.LAPSE)

    @rule()
    def ack(self) -> None:
        self.happen(ItemEvent.ACK)

    @rule()
    def fail(self) -> None:
        before = self.state
        self.happen(ItemEvent.FAIL)
        assert before not in HELD or self.state is ItemState.FAILED

    @rule()
    def cancel(self) -> None:
        before = self.state
        self.happen(ItemEvent.CANCEL)
        waiting = before in {ItemState.PENDING, ItemState.LEASED}
        assert self.state is (ItemState.STOPPED if waiting else before)

    @rule()
    def cancel_without_agent(self) -> None:
        self.happen(ItemEvent.CANCEL_LOST)

    @rule()
    @precondition(lambda self: self.ended_by in {EndedBy.AGENT, EndedBy.USER})
    def run_after_a_final_verdict(self) -> None:
        before = self.state
        for event in RUN_EVENTS:
            self.happen(event)
        assert self.state is before

    @rule()
    def run_starts(self) -> None:
        self.happen(ItemEvent.RUN_RUNNING)

    @rule()
    def run_ends(self) -> None:
        self.happen(ItemEvent.RUN_FAILED)

    @invariant()
    def never_held_twice(self) -> None:
        assert 0 <= self.pops - self.lapses <= 1
        assert self.acks <= 1
        assert self.acks == 1 or self.state not in {ItemState.RUNNING, ItemState.FINISHED}


TestAnyLife = AnyLife.TestCase
