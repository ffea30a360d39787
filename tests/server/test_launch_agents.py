"""Launch agents: registered, seen, asked to stop."""

import re
from typing import Any

import pytest
from launch_harness import Launch
from server_harness import Http

from client_documents import client_document

pytestmark = pytest.mark.anyio

STOP = "mutation($id: ID!) { stopLaunchAgent(input: {launchAgentId: $id}) { success } }"


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def seen(http: Http, agent: str) -> Any:
    return (await http.data(client_document("LaunchAgent.api"), agentId=agent))["launchAgent"]


async def say(http: Http, agent: str, status: str | None) -> bool:
    data = await http.data(
        client_document("updateLaunchAgent.api"), agentId=agent, agentStatus=status
    )
    return data["updateLaunchAgent"]["success"]


async def test_an_agent_gets_a_name_that_can_be_a_run_id(launch: Launch, http: Http) -> None:
    await launch.queue("a")
    await launch.queue("b")
    one, two = await launch.agent("a", "b"), await launch.agent("a")
    agent = await seen(http, one)
    assert re.fullmatch(r"agent-[a-z0-9]{8}", agent["name"])
    assert agent["name"] != (await seen(http, two))["name"]
    assert agent["runQueues"] == [await launch.queue_id("a"), await launch.queue_id("b")]
    assert (agent["hostname"], agent["agentStatus"], agent["stopPolling"]) == (
        "host",
        "POLLING",
        False,
    )


async def test_killed_is_the_last_status(launch: Launch, http: Http) -> None:
    await launch.queue()
    agent = await launch.agent()
    for status, expected in (
        ("RUNNING", "RUNNING"),
        (None, "RUNNING"),
        ("KILLED", "KILLED"),
        ("POLLING", "KILLED"),
    ):
        assert await say(http, agent, status)
        assert (await seen(http, agent))["agentStatus"] == expected


async def test_an_unknown_agent_is_told_without_an_error(http: Http) -> None:
    assert await seen(http, "TGF1bmNoQWdlbnQ6OTk=") is None
    assert not await say(http, "TGF1bmNoQWdlbnQ6OTk=", "POLLING")


async def test_an_agent_that_shall_stop_gets_no_more_items(launch: Launch, http: Http) -> None:
    await launch.queue()
    item, agent = await launch.push(), await launch.agent()
    assert (await http.data(STOP, id=agent))["stopLaunchAgent"]["success"]
    assert (await seen(http, agent))["stopPolling"] is True
    assert await launch.pop(agent=agent) is None
    assert await launch.popped_id() == item


async def test_an_agent_needs_queues_that_exist(launch: Launch, http: Http) -> None:
    await launch.queue()
    for queues, status in (([], 400), (["UnVuUXVldWU6OTk="], 404), (["x"], 404)):
        reply = await http.ask(
            client_document("createLaunchAgent.api"),
            entity="tester",
            project="model-registry",
            queues=queues,
            hostname="h",
        )
        assert reply.status == status


async def test_people_see_who_polls_a_queue(launch: Launch, http: Http) -> None:
    await launch.queue("a")
    await launch.queue("b")
    agent = await launch.agent("a")
    data = await http.data("""{ project(name: "model-registry", entityName: "tester") {
        launchAgents { id queueNames version createdBy agentConfig }
        runQueues { name launchAgents { id } } } }""")
    assert data["project"] == {
        "launchAgents": [
            {
                "id": agent,
                "queueNames": ["a"],
                "version": "wandb@0.31.0",
                "createdBy": "tester",
                "agentConfig": '{"max_jobs":1}',
            }
        ],
        "runQueues": [
            {"name": "a", "launchAgents": [{"id": agent}]},
            {"name": "b", "launchAgents": []},
        ],
    }
