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
    log_tail: tuple[str, ...] = ()
    """Last lines of the run's own output, oldest first, for the uploaded error file."""


SUCCEEDED = Outcome(failed=False)
