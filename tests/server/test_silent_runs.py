"""A killed process says nothing: its run counts as crashed after a while."""

from datetime import timedelta
from typing import Any

import anyio
import pytest
from server_harness import Http, Server
from sqlalchemy import event, insert, select

from launch_async.server.context import utc_now
from launch_async.server.crashes import (
    BATCH_RUNS,
    mark_crashed,
    silent_runs,
    watch_for_crashes,
)
from launch_async.server.store.tables.runs import runs

pytestmark = pytest.mark.anyio

COMPUTED = {column.name for column in runs.c if column.computed is not None}
STATES = "select name, state from runs order by name"


async def test_silent_runs_crash_and_others_do_not(http: Http, server: Server) -> None:
    for name in ("silent", "done", "talking"):
        await http.stream(name, {})
    await http.stream("done", {"complete": True, "exitcode": 0})
    quiet_since = utc_now()
    await http.stream("talking", {})
    assert await mark_crashed(server.services.store, silent_since=quiet_since) == 1
    assert await server.rows(STATES) == [
        ("done", "finished"),
        ("silent", "crashed"),
        ("talking", "running"),
    ]
    assert await mark_crashed(server.services.store, silent_since=quiet_since) == 0


async def test_a_silent_run_that_was_being_preempted_was(http: Http, server: Server) -> None:
    await http.stream("r1", {"preempting": True})
    await mark_crashed(server.services.store, silent_since=utc_now() + timedelta(seconds=1))
    assert await server.rows(STATES) == [("r1", "preempted")]
    await http.stream("r1", {})
    assert await server.rows(STATES) == [("r1", "running")]


async def test_a_crashed_run_that_speaks_again_goes_on(http: Http, server: Server) -> None:
    await http.stream("r1", {})
    await mark_crashed(server.services.store, silent_since=utc_now() + timedelta(seconds=1))
    await http.stream("r1", {})
    assert await server.rows(STATES) == [("r1", "running")]


async def test_runs_have_a_whole_timeout_after_a_start(http: Http, server: Server) -> None:
    await http.stream("r1", {})
    with anyio.move_on_after(0.2):
        await watch_for_crashes(server.services)
    assert await server.rows(STATES) == [("r1", "running")]


async def test_all_that_fell_silent_is_marked_at_once(http: Http, server: Server) -> None:
    await http.stream("first", {})
    await add_copies(server, BATCH_RUNS, state="running")
    later = utc_now() + timedelta(seconds=1)
    assert await mark_crashed(server.services.store, silent_since=later) == BATCH_RUNS + 1
    assert await server.rows("select distinct state from runs") == [("crashed",)]


async def add_copies(server: Server, count: int, *, state: str) -> None:
    """Add runs that are like the one that there is, but for their state."""
    async with server.services.store.write() as connection:
        (run,) = (await connection.execute(select(runs))).mappings()
        copy = {name: run[name] for name in run if name not in {"id", *COMPUTED}}
        rows = [{**copy, "name": f"r{number}", "state": state} for number in range(count)]
        await connection.execute(insert(runs), rows)


async def test_a_look_reads_the_runs_that_live_and_no_others(http: Http, server: Server) -> None:
    await http.stream("live", {})
    await add_copies(server, 5_000, state="finished")
    async with server.services.store.write() as connection:
        seen: list[tuple[str, Any]] = []

        def note(_connection: Any, _cursor: Any, statement: str, given: Any, *_: Any) -> None:
            seen.append((statement, given))

        event.listen(connection.sync_connection, "before_cursor_execute", note)
        found = await connection.execute(silent_runs(utc_now() + timedelta(seconds=1)))
        assert [row.state for row in found] == ["running"]
        statement, given = seen[0]
        words = "EXPLAIN QUERY PLAN" if server.services.store.dialect == "sqlite" else "EXPLAIN"
        plan = await connection.exec_driver_sql(f"{words} {statement}", given)
        assert "ix_runs_live" in "\n".join(str(row[-1]) for row in plan)
