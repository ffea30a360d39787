"""The phases' table, and docs/states.md, which is drawn from it and from the items' table.

Redraw the page after a change of either table: `python tests/domain/test_phase.py`.
"""

from pathlib import Path

import pytest

from launch_async.domain.lease import ENDED, ItemEvent, ItemState
from launch_async.domain.lease import MOVES as ITEM_MOVES
from launch_async.domain.phase import MAX_WAITING_REPORTS, MOVES, Phase, move

PAGE = Path(__file__).parents[2] / "docs" / "states.md"

HEAD = """# States

Drawn from `domain/phase.py` and `domain/lease.py` by `tests/domain/test_phase.py`; do not edit.

## An item in the agent's hands

Only `phase.move()` changes a phase, and the journal holds it before anything outside happens.

An item counts against the limits of its agent, queue and target until it is `reporting`: its run
has ended then, and an outage of the service must not keep others from running. A run that its
backend lost keeps its slot while the service is asked how the run itself ended: some seconds, and
one minute when the service does not answer. At most {reports} items wait for their report at once;
an agent that has so many takes no new ones. Reports go out oldest end first, and a restart keeps
them.

```mermaid
stateDiagram-v2
    [*] --> leased
"""

MIDDLE = """```

## An item on the control plane

A lease lasts 60 s and has a token of its own, which the `pop` hands out (docs/adr/0007). An ack or
a fail of an item whose lease has lapsed, that was cancelled or that has ended changes nothing.

Cancelling a claimed item asks its run to stop, and the item ends when the run or the agent says so.
An item that its run has ended follows the run when that starts again; what an agent has failed
stays failed, and what a user has cancelled stays stopped. A requeue leaves an ended item as it is
and makes a new one.

```mermaid
stateDiagram-v2
    [*] --> PENDING
"""


def drawing() -> str:
    lines = [HEAD.format(reports=MAX_WAITING_REPORTS)]
    lines += [f"    {start} --> {to}\n" for start in Phase for to in Phase if to in MOVES[start]]
    lines += [f"    {Phase.DONE} --> [*]\n", MIDDLE]
    lines += [f"    {start} --> {to}: {event}\n" for (start, event), to in in_order()]
    lines += [f"    {state} --> [*]\n" for state in ItemState if state in ENDED]
    return "".join([*lines, "```\n"])


def in_order() -> list[tuple[tuple[ItemState, ItemEvent], ItemState]]:
    states, events = list(ItemState), list(ItemEvent)
    return sorted(
        ITEM_MOVES.items(), key=lambda move: (states.index(move[0][0]), events.index(move[0][1]))
    )


def test_the_page_shows_the_tables():
    assert PAGE.read_text() == drawing()


def test_every_phase_leads_to_done():
    for start in Phase:
        reached = {start}
        for _ in Phase:
            reached |= {to for phase in reached for to in MOVES[phase]}
        assert Phase.DONE in reached


def test_a_move_that_the_table_lacks_is_refused():
    with pytest.raises(ValueError, match="no move from running to launching"):
        move(Phase.RUNNING, Phase.LAUNCHING)


def test_staying_is_allowed_for_a_retry_after_a_crash():
    assert move(Phase.LAUNCHING, Phase.LAUNCHING) is Phase.LAUNCHING


if __name__ == "__main__":
    PAGE.write_text(drawing())
