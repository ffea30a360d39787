"""Notices runs and agents that fell silent: who was killed says nothing, so silence must speak."""

from datetime import datetime, timedelta

import anyio
import structlog
from sqlalchemy import Select, select
from sqlalchemy.exc import SQLAlchemyError

from launch_async.server.cancels import end_abandoned
from launch_async.server.context import utc_now
from launch_async.server.errors import ApiError
from launch_async.server.runs import set_run_state
from launch_async.server.services import Services
from launch_async.server.store import Store
from launch_async.server.store.tables.runs import live_run, runs

CHECKS_PER_TIMEOUT = 10
BATCH_RUNS = 200

log = structlog.get_logger(__name__)


async def watch_for_crashes(services: Services) -> None:
    """Mark silent runs as crashed, and end cancelled items of lost agents, until cancelled.

    The first look comes a whole timeout after the start: while the server was down, no run could
    be heard.
    """
    timeout = timedelta(seconds=services.settings.run_timeout_seconds)
    await anyio.sleep(timeout.total_seconds())
    while True:
        try:
            await mark_crashed(services.store, silent_since=utc_now() - timeout)
            await end_abandoned(services.store, now=utc_now())
        except (SQLAlchemyError, ApiError) as error:
            log.warning("looking for what fell silent failed; next try follows", error=str(error))
        await anyio.sleep(timeout.total_seconds() / CHECKS_PER_TIMEOUT)


async def mark_crashed(store: Store, *, silent_since: datetime) -> int:
    """Mark live runs not heard since then as crashed; return how many they were.

    One that said that it was being preempted was preempted.
    """
    marked = count = await _mark_some(store, silent_since)
    while count == BATCH_RUNS:
        count = await _mark_some(store, silent_since)
        marked += count
    if marked:
        log.info("runs fell silent and count as ended", runs=marked)
    return marked


def silent_runs(since: datetime) -> Select[int, str]:
    """Return a SELECT of live runs not heard since then, which reads no others."""
    return (
        select(runs.c.id, runs.c.state)
        .where(live_run, runs.c.heartbeat_at < since)
        .order_by(runs.c.id)
        .limit(BATCH_RUNS)
    )


async def _mark_some(store: Store, silent_since: datetime) -> int:
    silent = silent_runs(silent_since)
    async with store.read() as connection:
        if (await connection.execute(silent)).first() is None:
            return 0
    async with store.write() as connection:
        locked = silent.with_for_update(skip_locked=True)  # one of them may speak at this moment
        found = (await connection.execute(locked)).all()
        for run_id, state in found:
            ended = "preempted" if state == "preempting" else "crashed"
            await set_run_state(connection, run_id, ended, now=utc_now())
    return len(found)
