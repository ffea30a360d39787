"""How an item ended, as it is reported."""

import msgspec

from launch_async.domain.errors import Reason, Stage


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one item; `failed=False` needs no other field."""

    failed: bool
    message: str = ""
    """What happened and the remedy, for the item's user; may hold the last lines of the log."""
    stage: Stage = Stage.RUN
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    """Number of the signal that ended the run."""
    again: bool = False
    """Whether the item goes back to its queue to go on with the same run: it was preempted."""
    asked: bool = False
    """Whether the service may have been asked to queue it again."""
    log_tail: tuple[str, ...] = ()
    """Last lines of the run's own output, oldest first, for the uploaded error file."""


SUCCEEDED = Outcome(failed=False)
