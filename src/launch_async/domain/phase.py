"""The phases of an item in the agent's hands: one table, and the only function that moves.

`docs/states.md` is drawn from this table by a test.
"""

from enum import StrEnum


class Phase(StrEnum):
    """Where an item is. Each phase but the last is an intent: what it names may have happened."""

    LEASED = "leased"
    """Popped; nothing has happened outside yet."""
    CLAIMING = "claiming"
    """The ack may have been sent."""
    PREPARING = "preparing"
    """Claimed: the job is being resolved, its image or environment found or built."""
    LAUNCHING = "launching"
    """The backend may have been asked to start the run."""
    RUNNING = "running"
    """The backend has the run; a handle finds it again."""
    REPORTING = "reporting"
    """The outcome is known; the queue may have been told, and the item queued again."""
    DONE = "done"
    """Nothing is left to do."""


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.LEASED: frozenset({Phase.CLAIMING, Phase.REPORTING, Phase.DONE}),
    Phase.CLAIMING: frozenset({Phase.PREPARING, Phase.DONE}),
    Phase.PREPARING: frozenset({Phase.LAUNCHING, Phase.REPORTING}),
    Phase.LAUNCHING: frozenset({Phase.RUNNING, Phase.REPORTING}),
    Phase.RUNNING: frozenset({Phase.REPORTING}),
    Phase.REPORTING: frozenset({Phase.DONE}),
    Phase.DONE: frozenset(),
}

OPEN = frozenset(Phase) - {Phase.DONE}

HOLDS_SLOT = OPEN - {Phase.REPORTING}
"""Phases that count against limits. An ended item whose report waits has no run any more: an outage
of the service must not keep others from running."""

MAX_WAITING_REPORTS = 1000
"""Ended items whose report waits, at most: an agent with so many takes no new ones."""


def move(current: Phase, to: Phase) -> Phase:
    """`to`, if the table allows it from `current`; staying is allowed (a retry after a crash).

    Raises:
        ValueError: the table has no such move; that is a fault of ours.
    """
    if to is not current and to not in MOVES[current]:
        msg = f"no move from {current} to {to}"
        raise ValueError(msg)
    return to
