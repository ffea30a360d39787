"""Agents that fall silent, and agents that come back as who they were."""

import json
from typing import Any

import anyio
import pytest
from launch_harness import Launch
from server_harness import Http, Server
from sqlalchemy import select

from client_documents import client_document
from launch_async.server.agent_configs import masked, read_config
from launch_async.server.errors import ApiError
from launch_async.server.store.tables.people import entities
from launch_async.server.users import add_member, create_api_key, create_user

pytestmark = pytest.mark.anyio

ME = '{"identity": "abc", "max_jobs": 2}'
SEEN = """query($id: ID!) { launchAgent(id: $id) {
  id name queueNames agentStatus stopPolling hostname version agentConfig online
  items { id state associatedRunId agentLost position } } }"""
STOP = "mutation($id: ID!) { stopLaunchAgent(input: {launchAgentId: $id}) { success } }"


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def seen(http: Http, agent: str) -> Any:
    return (await http.data(SEEN, id=agent))["launchAgent"]


async def say(http: Http, agent: str, status: str | None) -> None:
    await http.data(client_document("updateLaunchAgent.api"), agentId=agent, agentStatus=status)


async def test_an_agent_with_an_identity_is_the_same_at_its_next_start(
    launch: Launch, http: Http
) -> None:
    await launch.queue("a")
    await launch.queue("b")
    agent = await launch.agent("a", config=ME)
    before = await seen(http, agent)
    await http.data(STOP, id=agent)
    await say(http, agent, "KILLED")
    again = await launch.agent("b", config='{"identity": "abc", "max_jobs": 3}')
    after = await seen(http, again)
    assert (again, after["name"]) == (agent, before["name"])
    assert after["queueNames"] == ["b"]
    assert (after["agentStatus"], after["stopPolling"]) == ("POLLING", False)
    assert json.loads(after["agentConfig"]) == {"identity": "abc", "max_jobs": 3}
    assert await launch.agent("b", config='{"identity": "other"}') != agent


async def test_starts_at_once_with_one_identity_make_one_agent(launch: Launch) -> None:
    await launch.queue()
    made: set[str] = set()

    async def start() -> None:
        made.add(await launch.agent(config=ME))

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(start)
    assert len(made) == 1


async def test_an_agent_without_an_identity_is_new_at_each_start(launch: Launch) -> None:
    await launch.queue()
    assert len({await launch.agent() for _ in range(3)}) == 3


async def test_what_it_had_claimed_is_its_own_again(launch: Launch, http: Http) -> None:
    await launch.queue()
    claimed, leased, agent = await launch.push(), await launch.push(), await launch.agent(config=ME)
    lease = await launch.lease(agent=agent)
    assert await launch.ack(claimed, "r1", lease)
    await launch.popped_id(agent=agent)
    await launch.silence(agent)
    await launch.lapse(leased)
    lost = await launch.item(claimed)
    assert (lost["state"], lost["agentLost"]) == ("CLAIMED", True)
    assert await launch.state(leased) == "PENDING", "a lease goes back"
    shown = await seen(http, agent)
    assert shown["online"] is False
    assert shown["items"] == [
        {
            "id": claimed,
            "state": "CLAIMED",
            "associatedRunId": "r1",
            "agentLost": True,
            "position": None,
        }
    ]
    assert await launch.agent(config=ME) == agent
    assert (await launch.item(claimed))["agentLost"] is False
    assert (await seen(http, agent))["online"] is True
    await launch.fail(claimed, "it broke", lease=lease)
    assert (await launch.item(claimed))["state"] == "FAILED"


async def test_an_identity_is_one_users(launch: Launch, http: Http, server: Server) -> None:
    await launch.queue()
    agent = await launch.agent(config=ME)
    async with server.services.store.write() as connection:
        other = await create_user(connection, "other")
        key = await create_api_key(connection, other)
        entity = await connection.scalar(select(entities.c.id).where(entities.c.name == "tester"))
        assert entity is not None
        await add_member(connection, entity, other)
    given: dict[str, Any] = {
        "entity": "tester",
        "project": "model-registry",
        "queues": [await launch.queue_id()],
        "hostname": "h",
        "agentConfig": ME,
    }
    reply = await http.ask(client_document("createLaunchAgent.api"), key, **given)
    assert reply.status == 409
    message = reply.json()["errors"][0]["message"]
    assert "another user's agent" in message
    assert (await seen(http, agent))["hostname"] == "host"


@pytest.mark.parametrize("word", ["status", "pop", "registration"])
async def test_a_silent_agent_is_heard_by(launch: Launch, http: Http, word: str) -> None:
    item = await launch.claimed()
    agent = await launch.agent(config=ME)
    await launch.silence(agent, seconds=119)
    assert (await seen(http, agent))["online"] is True
    await launch.silence(agent)
    assert (await seen(http, agent))["online"] is False
    match word:
        case "status":
            await say(http, agent, "POLLING")
        case "pop":
            await launch.pop(agent=agent)
        case _:
            await launch.agent(config=ME)
    assert (await seen(http, agent))["online"] is True
    assert (await launch.item(item))["agentLost"] is False, "nobody's item is nobody's loss"


async def test_a_killed_agent_is_offline_and_its_items_are_lost_once_it_is_silent(
    launch: Launch, http: Http
) -> None:
    await launch.queue()
    item, agent = await launch.push(), await launch.agent()
    await launch.ack(item, "r1", await launch.lease(agent=agent))
    await say(http, agent, "KILLED")
    assert (await seen(http, agent))["online"] is False
    assert (await launch.item(item))["agentLost"] is False, "its last jobs still run"
    await launch.silence(agent)
    assert (await launch.item(item))["agentLost"] is True
    await http.stream("r1", {"complete": True, "exitcode": 0}, project="target")
    assert (await launch.item(item))["agentLost"] is False, "it has ended"


async def test_an_agents_secrets_are_not_kept(launch: Launch, http: Http, server: Server) -> None:
    await launch.queue()
    config = {
        "max_jobs": 1,
        "builder": {"type": "kaniko", "docker_token": "sesame"},
        "registry": {"uri": "https://me:sesame@registry.example.com/x", "password": "sesame"},
        "environment": [{"aws_secret_access_key": "sesame", "region": "eu"}],
        "api_key": "",
    }
    agent = await launch.agent(config=json.dumps(config))
    shown = json.loads((await seen(http, agent))["agentConfig"])
    assert shown == {
        "max_jobs": 1,
        "builder": {"type": "kaniko", "docker_token": "***"},
        "registry": {"uri": "https://***@registry.example.com/x", "password": "***"},
        "environment": [{"aws_secret_access_key": "***", "region": "eu"}],
        "api_key": "",
    }
    (row,) = await server.rows("select config from launch_agents")
    assert "sesame" not in row.config


@pytest.mark.parametrize("config", ["[]", "3", '{"identity": 3}', '{"identity": ""}'])
async def test_a_config_that_cannot_be_meant_is_refused(launch: Launch, config: str) -> None:
    await launch.queue()
    reply = await launch.http.ask(
        client_document("createLaunchAgent.api"),
        entity="tester",
        project="model-registry",
        queues=[await launch.queue_id()],
        hostname="h",
        agentConfig=config,
    )
    assert reply.status == 400
    assert "agentConfig" in reply.json()["errors"][0]["message"]


def test_a_config_may_be_left_out() -> None:
    assert read_config(None).identity is read_config("null").identity is None
    assert masked(["ssh://host/path", {"keys": 1}]) == ["ssh://host/path", {"keys": 1}]
    with pytest.raises(ApiError):
        read_config(json.dumps({"identity": "x" * 129}))
