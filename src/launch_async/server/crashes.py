"""Notices runs that fell silent: a killed process says nothing, so its silence must speak."""

from datetime import datetime, timedelta

import anyio
import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from launch_async.server.context import utc_now
from launch_async.server.runs import set_run_state
from launch_async.server.services import Services
from launch_async.server.store import Store
from launch_async.server.store.tables.runs import runs

CHECKS_PER_TIMEOUT = 10
BATCH_RUNS = 200
LIVE_STATES = ("running", "preempting")

log = structlog.get_logger(__name__)


async def watch_for_crashes(services: Services) -> None:
    """Mark silent runs as crashed, until cancelled.

    The first look comes a whole timeout after the start: while the server was down, no run could
    be heard.
    """
    timeout = timedelta(seconds=services.settings.run_timeout_seconds)
    await anyio.sleep(timeout.total_seconds())
    while True:
        try:
            await mark_crashed(services.store, silent_since=utc_now() - timeout)
        except SQLAlchemyError as error:
            log.warning("looking for crashed runs failed; next try follows", error=str(error))
        await anyio.sleep(timeout.total_seconds() / CHECKS_PER_TIMEOUT)


async def mark_crashed(store: Store, *, silent_since: datetime) -> int:
    """Mark live runs not heard since then as crashed; return how many they were."""
    silent = (
        select(runs.c.id)
        .where(runs.c.state.in_(LIVE_STATES), runs.c.heartbeat_at < silent_since)
        .order_by(runs.c.id)
        .limit(BATCH_RUNS)
    )
    async with store.read() as connection:
        if (await connection.execute(silent)).first() is None:
            return 0
    async with store.write() as connection:
        found = list((await connection.execute(silent)).scalars())
        for run_id in found:
            await set_run_state(connection, run_id, "crashed", now=utc_now())
    log.info("runs fell silent and count as crashed", runs=len(found))
    return len(found)
