"""Stopping and deleting runs at awkward moments: their items never hang."""

from typing import Any

import pytest
from launch_harness import Launch, spec
from server_harness import Http

from client_documents import client_document
from launch_async.server.ids import encode_run_id

pytestmark = pytest.mark.anyio

RUN_ID = encode_run_id("r1", "Target", "tester")
NAMED = {"entityName": "tester", "projectName": "target", "runId": "r1"}


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def stop(http: Http) -> int:
    return (await http.ask(client_document("StopRun.core"), id=RUN_ID)).status


async def stream(http: Http, **body: Any) -> Any:
    reply = await http.stream("r1", body, project="target")
    assert reply.status == 200, reply.body
    return reply.json()


async def stopped(http: Http) -> bool:
    query = """query($entityName: String!, $projectName: String!, $runId: String!) {
      project(name: $projectName, entityName: $entityName) { run(name: $runId) { stopped } } }"""
    run = (await http.data(query, **NAMED))["project"]["run"]
    return bool(run["stopped"])


async def test_a_claimed_run_is_stopped_before_its_first_word(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    assert await stop(http) == 200
    assert await stopped(http), "its agent hears it"
    assert await launch.state(item) == "CLAIMED", "who holds it still has to say how it ended"
    assert (await stream(http))["stopped"] is True, "its process hears it"
    assert await launch.state(item) == "RUNNING"
    await stream(http, complete=True, exitcode=255)
    assert await launch.state(item) == "STOPPED"


async def test_an_item_that_is_failed_after_a_stop_was_stopped(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stop(http)
    assert await launch.fail(item, "stopped before it was launched")
    shown = await launch.item(item)
    assert (shown["state"], shown["message"]) == ("STOPPED", "stopped before it was launched")
    assert await http.server.rows("select state from runs where name = 'r1'") == [("crashed",)]
    await stream(http)
    assert await launch.state(item) == "STOPPED", "the agent's verdict is final"


async def test_a_stop_of_an_earlier_life_does_not_stop_the_next(launch: Launch, http: Http) -> None:
    await launch.claimed()
    await stream(http)
    await stop(http)
    await stream(http, complete=True, exitcode=255)
    again = await launch.push(spec=spec(run_id="r1", project="target"))
    await launch.popped_id()
    assert await launch.ack(again, "r1")
    await launch.fail(again, "no such image")
    assert await launch.state(again) == "FAILED"


async def test_a_run_that_nobody_claimed_cannot_be_stopped(launch: Launch, http: Http) -> None:
    await launch.queue()
    await launch.push()
    await launch.popped_id()
    assert await stop(http) == 404
    assert await http.server.rows("select name from runs") == []


@pytest.mark.parametrize(("asked", "state"), [(False, "FAILED"), (True, "STOPPED")])
async def test_deleting_a_run_ends_its_item(
    launch: Launch, http: Http, asked: bool, state: str
) -> None:
    item = await launch.claimed()
    await stream(http)
    if asked:
        await stop(http)
    await http.data(client_document("DeleteRun.plain"), id=RUN_ID)
    assert await launch.state(item) == state
    await stream(http)
    assert await launch.state(item) == "RUNNING", "its process was alive after all"


async def test_a_failed_item_leaves_no_run_pending(launch: Launch, http: Http) -> None:
    await http.data(
        client_document("UpsertBucket.core"),
        entity="tester",
        project="target",
        name="r1",
        state="pending",
    )
    item = await launch.claimed()
    await launch.fail(item, "no such image")
    assert await http.server.rows("select state from runs") == [("crashed",)]


async def test_a_late_fail_and_a_repeated_ack_change_nothing(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http)
    assert await launch.ack(item, "r1")
    assert await launch.state(item) == "RUNNING"
    await stop(http)
    await stream(http, complete=True, exitcode=255)
    before = await launch.item(item)
    assert await launch.fail(item, "late")
    assert not await launch.ack(item, "r1")
    assert await launch.item(item) == before
