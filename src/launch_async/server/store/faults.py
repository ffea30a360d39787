"""What a database's refusals mean for the request that met them.

A value that does not fit is its sender's matter (400), a database that is away or busy a matter of
time (503). What a transaction lost to another one can be done again from its start: `insist`.
"""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeVar

import anyio
import structlog
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from launch_async.server.errors import ApiError, Busy

TRIES: Final = 5
PAUSE_SECONDS: Final = 0.02
NOT_STORABLE: Final = "22"  # the class of values that do not fit
LOST: Final = frozenset({"40001", "40P01", "0A000"})  # serialization, deadlock, a changed schema
OVERTAKEN: Final = frozenset({"23503", "23505"})  # a row came or went since we looked
AWAY: Final = ("08", "53", "57", "55P03")  # connection, resources, an operator, a lock's time
TOO_LARGE: Final = "a value is too long or too large to be stored; send a smaller one"
BUSY: Final = "the database is busy or does not answer; try again"

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Stage:
    """How far a transaction got."""

    connected = False
    committing = False


@contextmanager
def told_apart() -> Generator[Stage]:
    """Turn the database's errors into refusals, where they are not faults of our own."""
    stage = Stage()
    try:
        yield stage
    except (StatementError, PoolTimeout, OSError, OverflowError) as error:
        if isinstance(error, StatementError) and isinstance(error.orig, ApiError):
            raise error.orig from None  # a value that was refused before it was sent
        refusal = _refusal(error, stage)
        if refusal is None:
            raise
        if refusal.status >= 500:
            log.warning("the database refused", error=f"{type(error).__name__}: {error}"[:500])
        raise refusal from error


async def insist(work: Callable[[], Awaitable[T]]) -> T:
    """Do work whose transaction another one may undo; then it is done again, but not for ever.

    The work holds one transaction, and nothing that was done before it may harm when done twice.
    """
    for turn in range(1, TRIES):
        try:
            return await work()
        except (Busy, DBAPIError) as error:
            if not undone(error):
                raise
        await anyio.sleep(turn * PAUSE_SECONDS)
    return await work()


def undone(error: BaseException | None) -> bool:
    """Tell whether an error left nothing behind and may not come again."""
    if isinstance(error, Busy):
        return error.undone
    return isinstance(error, DBAPIError) and sqlstate_of(error) in OVERTAKEN


def sqlstate_of(error: DBAPIError) -> str:
    """Return PostgreSQL's five characters for what happened; SQLite has none ("")."""
    return getattr(error.orig, "sqlstate", None) or ""


def _refusal(error: Exception, stage: Stage) -> ApiError | None:
    match error:
        case DBAPIError():
            return _refusal_of(error, stage)
        case StatementError():
            return None
        case OverflowError():
            return ApiError(TOO_LARGE)
        case TimeoutError() | ConnectionError() | PoolTimeout():
            return Busy(BUSY, undone=False)
        case _:  # an OSError: of the database only as long as there is no connection to it
            return None if stage.connected else Busy(BUSY, undone=False)


def _refusal_of(error: DBAPIError, stage: Stage) -> ApiError | None:
    state = sqlstate_of(error)
    if state.startswith(NOT_STORABLE):
        return ApiError(TOO_LARGE)
    if state in LOST or (error.connection_invalidated and not stage.committing):
        return Busy(BUSY, undone=True)
    if error.connection_invalidated or state.startswith(AWAY) or "is locked" in str(error.orig):
        return Busy(BUSY, undone=False)
    return None
