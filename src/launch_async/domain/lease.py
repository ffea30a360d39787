"""Item states on the control plane and the one table that says which moves are legal.

    PENDING -pop-> LEASED -ack-> CLAIMED -run-> RUNNING -run-> FINISHED | FAILED | STOPPED
       ^--lapse------'            '--fail--> FAILED <--fail--'
       '--cancel--> STOPPED <--cancel--' LEASED

The protocol never closes an item: it follows its run, and a run that starts again takes it along.
Whoever cancels an item that an agent has claimed asks its run to stop; the item ends when the run
or the agent says so. A requeue moves nothing: an item that has ended stays as it is, and a new one
with its spec begins as PENDING.
"""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

LEASE: Final = timedelta(seconds=60)
"""How long a popped item waits for its ack. W&B's own agent counts on "about a minute"."""

SILENCE: Final = timedelta(seconds=120)
"""After so long without a word an agent counts as lost. W&B's reports its status every 20 s."""


class ItemState(StrEnum):
    """Where an item stands; the words are W&B's as far as its client knows them."""

    PENDING = "PENDING"
    LEASED = "LEASED"
    CLAIMED = "CLAIMED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


class ItemEvent(StrEnum):
    """What may happen to an item."""

    POP = "pop"
    LAPSE = "lapse"
    ACK = "ack"
    FAIL = "fail"
    CANCEL = "cancel"
    CANCEL_LOST = "cancel, as its agent is lost and its run never spoke"
    RUN_RUNNING = "run is running"
    RUN_FINISHED = "run finished"
    RUN_FAILED = "run failed"
    RUN_STOPPED = "run was stopped"


class EndedBy(StrEnum):
    """Who said that the item is over. Only what the run said can be taken back by the run."""

    AGENT = "agent"
    RUN = "run"
    USER = "user"


ENDED: Final = frozenset({ItemState.FINISHED, ItemState.FAILED, ItemState.STOPPED})
"""States without a lease or a process."""

HELD: Final = frozenset({ItemState.LEASED, ItemState.CLAIMED, ItemState.RUNNING})
"""States in which an agent has the item: its word ends it, and its queue's limit counts it."""

CLAIMED_STATES: Final = frozenset({ItemState.CLAIMED, ItemState.RUNNING})
"""States of an item that is one agent's until it ends."""

RUN_EVENTS: Final[Mapping[ItemEvent, ItemState]] = MappingProxyType(
    {
        ItemEvent.RUN_RUNNING: ItemState.RUNNING,
        ItemEvent.RUN_FINISHED: ItemState.FINISHED,
        ItemEvent.RUN_FAILED: ItemState.FAILED,
        ItemEvent.RUN_STOPPED: ItemState.STOPPED,
    }
)

MOVES: Final[Mapping[tuple[ItemState, ItemEvent], ItemState]] = MappingProxyType(
    {
        (ItemState.PENDING, ItemEvent.POP): ItemState.LEASED,
        (ItemState.LEASED, ItemEvent.LAPSE): ItemState.PENDING,
        (ItemState.LEASED, ItemEvent.ACK): ItemState.CLAIMED,
        **{(state, ItemEvent.FAIL): ItemState.FAILED for state in HELD},
        (ItemState.PENDING, ItemEvent.CANCEL): ItemState.STOPPED,
        (ItemState.LEASED, ItemEvent.CANCEL): ItemState.STOPPED,
        (ItemState.CLAIMED, ItemEvent.CANCEL_LOST): ItemState.STOPPED,
        **{
            (state, event): target
            for state in CLAIMED_STATES
            for event, target in RUN_EVENTS.items()
        },
    }
)
"""Every legal move of an item that has not ended."""


def move(
    state: ItemState, event: ItemEvent, *, ended_by: EndedBy | None = None
) -> ItemState | None:
    """Return the state after the event, or None when the event changes nothing.

    An ended item only follows its run, and only if the run ended it: a resumed run makes it RUNNING
    again, a run that was given up as crashed and reports its end after all corrects it.
    """
    if state in ENDED:
        return RUN_EVENTS.get(event) if ended_by is EndedBy.RUN else None
    return MOVES.get((state, event))


def run_event(run_state: str, *, stop_requested: bool) -> ItemEvent | None:
    """Translate a run's new state; None for states that say nothing about the item.

    A run that ends badly after somebody asked it to stop was stopped: W&B's client leaves with exit
    code 255 then, and a process that the agent killed does not even say that.
    """
    match run_state:
        case "running" | "preempting":
            return ItemEvent.RUN_RUNNING
        case "finished":
            return ItemEvent.RUN_FINISHED
        case "failed" | "crashed" | "killed" | "preempted" if stop_requested:
            return ItemEvent.RUN_STOPPED
        case "failed" | "crashed" | "killed" | "preempted":
            return ItemEvent.RUN_FAILED
        case _:
            return None
