"""A killed process says nothing: its run counts as crashed after a while."""

from datetime import timedelta

import anyio
import pytest
from server_harness import Http, Server

from launch_async.server.context import utc_now
from launch_async.server.crashes import mark_crashed, watch_for_crashes

pytestmark = pytest.mark.anyio

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
