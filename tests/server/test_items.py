"""Items follow their runs, and keep what agents say of them."""

from typing import Any

import pytest
from launch_harness import WHERE, Launch, spec
from server_harness import Http

from client_documents import client_document
from launch_async.server.ids import encode_run_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def stream(http: Http, run: str = "r1", **body: Any) -> None:
    """Speak as the run would. The agent writes the project's name in lower case."""
    reply = await http.stream(run, body, project="target")
    assert reply.status == 200, reply.body


async def stop(http: Http, run: str = "r1") -> None:
    await http.data(client_document("StopRun.core"), id=encode_run_id(run, "target", "tester"))


async def run_state(http: Http, run: str = "r1") -> str:
    data = await http.data(
        client_document("RunState.api"), entity="tester", project="target", name=run
    )
    return data["project"]["run"]["state"]


async def test_an_item_follows_its_run_to_a_good_end(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http)
    running = await launch.item(item)
    assert running["state"] == "RUNNING"
    assert running["startedAt"] is not None
    await stream(http, complete=True, exitcode=0)
    done = await launch.item(item)
    assert done["state"] == "FINISHED"
    assert done["endedAt"] is not None


async def test_a_run_that_fails_fails_its_item(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http, complete=True, exitcode=3)
    assert await launch.state(item) == "FAILED"


async def test_a_stopped_run_stops_its_item(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http)
    await stop(http)
    assert await launch.state(item) == "RUNNING"
    await stream(http, complete=True, exitcode=255)
    assert await launch.state(item) == "STOPPED"


async def test_a_resumed_run_takes_its_item_along(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http, complete=True, exitcode=1)
    await stream(http)
    resumed = await launch.item(item)
    assert (resumed["state"], resumed["endedAt"]) == ("RUNNING", None)
    await stream(http, complete=True, exitcode=0)
    assert await launch.state(item) == "FINISHED"


async def test_a_run_that_began_before_the_ack_counts(launch: Launch, http: Http) -> None:
    await launch.queue()
    item = await launch.push()
    await launch.popped_id()
    await stream(http)
    await stream(http, complete=True, exitcode=0)
    assert await launch.ack(item, "r1")
    assert await launch.state(item) == "FINISHED"


async def test_a_requeued_run_belongs_to_its_newest_item(launch: Launch, http: Http) -> None:
    old = await launch.claimed()
    await stream(http, complete=True, exitcode=1)
    new = await launch.push(spec=spec(run_id="r1", project="target"))
    await launch.popped_id()
    assert await launch.ack(new, "r1")
    assert await launch.state(new) == "CLAIMED", "the end of an earlier life says nothing"
    await stream(http)
    assert (await launch.state(old), await launch.state(new)) == ("FAILED", "RUNNING")


async def test_a_failed_item_says_why(launch: Launch) -> None:
    item = await launch.claimed()
    assert await launch.fail(item, "no such image", "build")
    shown = await launch.item(item)
    assert (shown["state"], shown["message"], shown["stage"]) == (
        "FAILED",
        "no such image",
        "build",
    )
    assert shown["filePaths"] == [f"{item}/error/error.log"]
    assert await launch.fail(item, "again")
    assert (await launch.item(item))["message"] == "no such image"


async def test_failing_an_item_gives_up_its_run(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http)
    await launch.fail(item)
    assert await run_state(http) == "crashed"
    await stream(http)
    assert await launch.state(item) == "FAILED", "the agent's verdict is final"


async def test_an_agent_adds_its_reason_to_a_failure_that_the_run_told(
    launch: Launch, http: Http
) -> None:
    item = await launch.claimed()
    await stream(http, complete=True, exitcode=1)
    await launch.fail(item, "out of memory")
    await launch.fail(item, "something else")
    shown = await launch.item(item)
    assert (shown["state"], shown["message"]) == ("FAILED", "out of memory")


async def test_a_finished_item_does_not_fail(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    await stream(http, complete=True, exitcode=0)
    assert await launch.fail(item)
    shown = await launch.item(item)
    assert (shown["state"], shown["message"]) == ("FINISHED", None)


async def test_failing_is_never_an_error(launch: Launch) -> None:
    await launch.queue()
    pending = await launch.push()
    assert await launch.fail(pending)
    assert await launch.state(pending) == "PENDING"
    assert not await launch.fail("UnVuUXVldWVJdGVtOjk5")
    assert not await launch.fail("no id at all")


async def test_warnings_are_kept_once(launch: Launch, http: Http) -> None:
    item = await launch.claimed()
    warn = client_document("updateRunQueueItemWarning.api")
    for message in ("no room", "no room", "still no room"):
        await http.data(
            warn, runQueueItemId=item, message=message, stage="Kubernetes", filePaths=None
        )
    shown = await launch.item(item)
    assert [each["message"] for each in shown["warnings"]] == ["no room", "still no room"]
    assert shown["state"] == "CLAIMED"


async def test_a_deleted_item_is_not_acked(launch: Launch, http: Http) -> None:
    await launch.queue()
    item = await launch.push()
    await launch.popped_id()
    gone = {"queueID": await launch.queue_id(), "runQueueItemId": item}
    await http.data(client_document("DeleteFromRunQueue.jobs"), **gone)
    assert not await launch.ack(item, "r1")
    assert (await http.ask(client_document("DeleteFromRunQueue.jobs"), **gone)).status == 404


async def test_a_secret_key_goes_to_the_agent_only(launch: Launch) -> None:
    await launch.queue()
    status, pushed = await launch.try_push(spec=spec(_wandb_api_key="sesame"))
    assert status == 200
    assert "sesame" not in pushed["runSpec"]
    assert "_wandb_api_key" not in (await launch.item(pushed["runQueueItemId"]))["runSpec"]
    popped = await launch.pop()
    assert popped is not None
    assert popped["runSpec"]["_wandb_api_key"] == "sesame"


async def test_items_are_listed_in_pages_and_counted(launch: Launch, http: Http) -> None:
    await launch.queue()
    items = [await launch.push() for _ in range(5)]
    await launch.popped_id()
    query = """
    query($entityName: String!, $projectName: String!, $after: String, $states: [String!]) {
      project(name: $projectName, entityName: $entityName) { runQueue(name: "q") {
        itemCounts
        runQueueItems(first: 2, after: $after, states: $states) {
          edges { node { id } } pageInfo { endCursor hasNextPage } } } } }
    """

    async def page(**variables: Any) -> Any:
        return (await http.data(query, **WHERE, **variables))["project"]["runQueue"]

    seen: list[str] = []
    after = None
    while True:
        found = (await page(after=after))["runQueueItems"]
        seen += [edge["node"]["id"] for edge in found["edges"]]
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    assert seen == items[::-1]
    leased = await page(states=["LEASED"])
    assert [edge["node"]["id"] for edge in leased["runQueueItems"]["edges"]] == items[:1]
    assert leased["itemCounts"] | {"PENDING": 4, "LEASED": 1} == leased["itemCounts"]
    assert sum(leased["itemCounts"].values()) == 5
