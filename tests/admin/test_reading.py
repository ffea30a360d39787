"""What the endpoint shows of items, queues, logs and tasks."""

from collections.abc import Callable

import aiohttp
import anyio
import msgspec
import pytest

from launch_async.admin import reading
from launch_async.admin.app import MAX_FOLLOWERS
from launch_async.domain.errors import Unavailable
from launch_async.ports.status import AgentView
from operated_agent import OperatedAgent, a_queue, a_view, an_item, endpoint, get

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 10.0


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        while not condition():
            await anyio.sleep(0.005)


def decoded(answer: tuple[int, str]) -> dict[str, object]:
    status, text = answer
    assert status == 200, text
    found: dict[str, object] = msgspec.json.decode(text)
    return found


async def test_the_status_is_the_whole_view_with_as_many_items_as_are_asked_for():
    agent = OperatedAgent()
    agent.now = a_view(items=(an_item(3), an_item(1)))
    async with endpoint(agent) as session:
        _, text = await get(session, "/status")
        few = decoded(await get(session, "/status?items=1"))
    assert msgspec.json.decode(text, type=AgentView) == agent.now
    assert [item["id"] for item in few["items"]] == ["item-3"]  # type: ignore[attr-defined,index]


async def test_items_are_asked_for_by_queue_and_phase():
    agent = OperatedAgent()
    agent.now = a_view(items=tuple(an_item(number) for number in range(5)))
    async with endpoint(agent) as session:
        page = decoded(await get(session, "/items?queue=q&phase=running&limit=2"))
        await get(session, "/items")
    assert (page["open"], page["matching"], len(page["items"])) == (7, 5, 2)  # type: ignore[arg-type]
    assert agent.calls == [("items", "q", "running"), ("items", "None", "None")]


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "limit=-1",
        "limit=100001",
        "limit=²",
        "limit=000000000001001",
        "limit=" + "9" * 5000,
    ],
)
async def test_a_limit_that_is_no_number_is_refused(query: str):
    async with endpoint(OperatedAgent()) as session:
        assert (await get(session, f"/items?{query}"))[0] == 400


async def test_an_item_is_found_by_its_id():
    agent = OperatedAgent()
    agent.now = a_view(items=(an_item(1, id="UnVu/Q=="),))
    async with endpoint(agent) as session:
        assert decoded(await get(session, "/items/UnVu%2FQ=="))["id"] == "UnVu/Q=="
        status, text = await get(session, "/items/other")
    assert status == 404
    assert "another agent's" in text


async def test_an_explanation_is_given_for_items_and_queues():
    async with endpoint(OperatedAgent()) as session:
        assert decoded(await get(session, "/items/item-1/explain"))["reasons"] == [
            "builds are busy"
        ]
        assert decoded(await get(session, "/queues/q/explain"))["state"] == "preparing"
        status, text = await get(session, "/queues/r/explain")
        assert (status, "does not poll a queue 'r'; it polls q" in text) == (404, True)
        assert (await get(session, "/items/item-2/explain"))[0] == 404


async def test_queues_are_listed():
    agent = OperatedAgent()
    agent.now = a_view(queues=(a_queue(), a_queue("b", paused=True)))
    async with endpoint(agent) as session:
        queues = decoded(await get(session, "/queues"))
    assert [(queue["name"], queue["paused"]) for queue in queues] == [("q", False), ("b", True)]  # type: ignore[index]


def printing_agent() -> OperatedAgent:
    agent = OperatedAgent()
    agent.now = a_view(items=(an_item(1, id="i"),))
    return agent


async def test_the_last_lines_of_a_log_are_given():
    async with endpoint(printing_agent()) as session:
        assert await get(session, "/items/i/logs?lines=2") == (200, "i 0\ni 1\n")


@pytest.mark.parametrize("query", ["", "?follow=1"])
async def test_an_item_that_is_not_open_has_no_log_rather_than_an_empty_one(query: str):
    async with endpoint(printing_agent()) as session:
        status, text = await get(session, f"/items/other/logs{query}")
    assert (status, "other is not open at this agent" in text) == (404, True)


async def test_a_backend_that_cannot_say_what_was_printed_is_quoted():
    agent = printing_agent()
    agent.log_fault = Unavailable("no Docker engine answers")
    async with endpoint(agent) as session:
        status, text = await get(session, "/items/i/logs")
        followed = await get(session, "/items/i/logs?follow=1")
    assert (status, msgspec.json.decode(text)) == (503, {"error": "no Docker engine answers"})
    assert followed == (200, "launch-async: the log ends here: no Docker engine answers\n")


async def test_a_follower_who_reads_nothing_loses_its_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "STALLED_SECONDS", 0.2)
    agent = printing_agent()
    agent.log = (b"x" * 1_000_000,) * 100
    async with endpoint(agent) as session, session.get("/items/i/logs?follow=1") as response:
        await until(lambda: agent.followers == 1)
        await until(lambda: agent.followers == 0)
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_a_log_is_followed_to_its_end():
    agent = printing_agent()
    async with endpoint(agent) as session, session.get("/items/i/logs?follow=1") as response:
        assert await response.content.readline() == b"first\n"
        assert await response.content.readline() == b"last\n"
        agent.released.set()
        assert await response.content.read() == b""


async def test_a_follower_who_leaves_frees_the_log():
    agent = printing_agent()
    agent.log = (b"x" * 65536,) * 10_000
    async with endpoint(agent) as session:
        async with session.get("/items/i/logs?follow=1") as response:
            assert await response.content.readany()
            assert agent.followers == 1
        await until(lambda: agent.followers == 0)


async def test_there_are_only_so_many_followers_and_probes_answer_meanwhile():
    agent = printing_agent()
    async with endpoint(agent) as session, anyio.create_task_group() as group:
        for _ in range(MAX_FOLLOWERS):
            group.start_soon(get, session, "/items/i/logs?follow=1")
        await until(lambda: agent.followers == MAX_FOLLOWERS)
        assert (await get(session, "/items/i/logs?follow=1"))[0] == 503
        assert (await get(session, "/livez"))[0] == 200
        agent.released.set()


async def test_logs_need_the_token_where_others_than_this_machine_can_ask():
    agent = printing_agent()
    agent.released.set()
    wrong = {"Authorization": "Bearer no"}
    async with endpoint(agent, host="0.0.0.0") as session:  # noqa: S104
        assert (await get(session, "/items/i/logs"))[0] == 200
        for path in ("/items/i/logs", "/items/i/logs?follow=1"):
            assert (await get(session, path, **wrong))[0] == 401
    async with endpoint(agent) as session:
        assert (await get(session, "/items/i/logs", **wrong))[0] == 200


async def test_tasks_show_their_names_and_what_they_wait_for():
    agent = OperatedAgent()

    async def waits_for_the_test() -> None:
        await agent.released.wait()

    async with endpoint(agent) as session, anyio.create_task_group() as group:
        group.start_soon(waits_for_the_test, name="item 7")
        await anyio.wait_all_tasks_blocked()
        shown = decoded(await get(session, "/debug/tasks?name=item"))
        none = decoded(await get(session, "/debug/tasks?limit=0"))
        assert (await get(session, "/debug/tasks", Authorization="Bearer x"))[0] == 401
        agent.released.set()
    (task,) = shown["shown"]  # type: ignore[misc]
    assert task["name"] == "item 7"
    assert any("waits_for_the_test" in frame for frame in task["stack"])
    assert none["shown"] == []
    assert none["tasks"] > 1  # type: ignore[operator]
