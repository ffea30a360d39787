"""The answer to a run's last word may be lost: told again, it is heard, and changes nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from launch_harness import Launch
from server_harness import USERNAME, Http, Reply, Server
from sqlalchemy import update

from client_documents import client_document
from launch_async.server.ids import encode_run_id
from launch_async.server.store.tables.queues import queue_items
from launch_async.server.store.tables.runs import runs

pytestmark = pytest.mark.anyio

RUN = "r1"
LINES = {"offset": 0, "content": ['{"a":1}', '{"a":2}']}
LAST_WORDS = {
    "files": {
        "wandb-history.jsonl": LINES,
        "wandb-events.jsonl": {"offset": 0, "content": ['{"cpu":1}']},
        "output.log": {"offset": 0, "content": ["hello"]},
        "wandb-summary.json": {"offset": 0, "content": ['{"a":2}']},
    },
    "uploaded": ["config.yaml"],
    "complete": True,
    "exitcode": 0,
}
KEPT = (
    "select * from runs",
    "select * from run_history",
    "select * from run_events",
    "select * from run_console",
    "select * from queue_items",
)


class Keyed:
    """A run that was launched, and its key."""

    def __init__(self, http: Http, popped: dict[str, Any]) -> None:
        self.http = http
        self.item: str = popped["runQueueItemId"]
        self.key: str = popped["runSpec"]["_wandb_api_key"]

    async def say(self, body: Any, run: str = RUN, project: str = "target") -> Reply:
        path = f"/files/{USERNAME}/{project}/{run}/file_stream"
        headers = {"Authorization": f"Bearer {self.key}"}
        return await self.http.send("POST", path, json=body, headers=headers)

    async def kept(self) -> list[Any]:
        return [sorted(map(str, await self.http.server.rows(sql))) for sql in KEPT]


@pytest.fixture
async def run(http: Http) -> Keyed:
    launch = Launch(http)
    await launch.queue()
    await launch.push()
    item = await launch.pop()
    assert item is not None
    run = Keyed(http, item)
    assert await launch.ack(run.item, RUN)
    return run


async def past(server: Server, ago: timedelta) -> None:
    """Let the run have ended some time ago."""
    then = datetime.now(UTC) - ago
    async with server.services.store.write() as connection:
        await connection.execute(update(queue_items).values(ended_at=then))
        await connection.execute(update(runs).values(finished_at=then))


@pytest.mark.parametrize("code", [0, 1, 255, 3221225477])
async def test_the_end_may_be_told_again_and_writes_nothing(run: Keyed, code: int) -> None:
    end = LAST_WORDS | {"exitcode": code}
    first = await run.say(end)
    assert first.status == 200
    before = await run.kept()
    for _ in range(2):
        again = await run.say(end)
        assert (again.status, again.json()) == (200, first.json())
    assert await run.kept() == before


async def test_so_may_the_end_of_a_run_that_was_stopped(run: Keyed) -> None:
    await run.say({})
    await run.http.data(client_document("StopRun.core"), id=encode_run_id(RUN, "target", USERNAME))
    end = {"complete": True, "exitcode": 255}
    assert (await run.say(end)).status == 200
    assert await run.http.server.rows("select state from queue_items") == [("STOPPED",)]
    assert (await run.say(end)).status == 200


async def test_so_may_the_end_of_a_run_that_was_preempted(run: Keyed) -> None:
    await run.say({"preempting": True})
    end = {"complete": True, "exitcode": 1}
    assert (await run.say(end)).status == 200
    assert (await run.say(end)).status == 200
    assert await run.http.server.rows("select state from runs") == [("preempted",)]


async def test_with_a_key_in_force_a_preempted_run_that_ends_twice_stays_one(http: Http) -> None:
    await http.stream(RUN, {"preempting": True})
    for _ in range(2):
        assert (await http.stream(RUN, {"complete": True, "exitcode": 1})).status == 200
    assert await http.server.rows("select state from runs") == [("preempted",)]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"uploaded": ["config.yaml"]},
        {"complete": False, "exitcode": 0},
        {"files": {"output.log": {"offset": 0, "content": ["hello"]}}},
        {"complete": True, "exitcode": 1},
        {"preempting": True},
        *(
            {"complete": True, "exitcode": 0, "files": {name: {"offset": 2, "content": ["{}"]}}}
            for name in ("wandb-history.jsonl", "wandb-events.jsonl", "output.log")
        ),
    ],
)
async def test_whatever_else_is_said_with_the_dead_key_is_a_401(
    run: Keyed, other: dict[str, Any]
) -> None:
    await run.say(LAST_WORDS)
    before = await run.kept()
    reply = await run.say(other)
    assert reply.status == 401
    assert "invalid API key" in reply.json()["error"]
    assert await run.kept() == before


async def test_nor_does_it_open_another_way(run: Keyed) -> None:
    await run.say(LAST_WORDS)
    before = await run.kept()
    asked = await run.http.ask("{ viewer { id } }", run.key)
    upsert = client_document("UpsertBucket.core")
    written = await run.http.ask(upsert, run.key, entity=USERNAME, project="target", name=RUN)
    elsewhere = [await run.say(LAST_WORDS, "other"), await run.say(LAST_WORDS, RUN, "elsewhere")]
    assert [asked.status, written.status, *(each.status for each in elsewhere)] == [401] * 4
    assert await run.kept() == before


@pytest.mark.parametrize(("hours", "status"), [(23, 200), (25, 401)])
async def test_it_lasts_for_a_day(run: Keyed, hours: int, status: int) -> None:
    await run.say(LAST_WORDS)
    await past(run.http.server, timedelta(hours=hours))
    assert (await run.say(LAST_WORDS)).status == status


async def test_an_end_that_the_run_did_not_tell_itself_cannot_be_repeated(run: Keyed) -> None:
    await run.say({})
    assert await Launch(run.http).fail(run.item)
    assert (await run.say({"complete": True, "exitcode": 0})).status == 401
    assert await run.http.server.rows("select state from runs") == [("crashed",)]


async def test_once_the_run_goes_on_for_another_item_its_first_end_is_past(run: Keyed) -> None:
    launch = Launch(run.http)
    await run.say(LAST_WORDS)
    await launch.requeue(run.item, keep=True)
    popped = await launch.pop()
    assert popped is not None
    again = Keyed(run.http, popped)
    assert await launch.ack(again.item, RUN)
    assert (await again.say({})).status == 200
    assert (await run.say(LAST_WORDS)).status == 401
    assert await run.http.server.rows("select state from runs") == [("running",)]
