"""What the endpoint changes, and for whom."""

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from launch_async.admin.access import MAX_ANSWERS
from launch_async.domain.errors import AgentUnfit, ConfigError
from operated_agent import OperatedAgent, a_view, address, an_item, endpoint, get, post

pytestmark = pytest.mark.anyio

CHANGES = [
    ("/drain", ("drain", "None"), 202),
    ("/queues/q/pause", ("pause", "q"), 200),
    ("/queues/q/resume", ("resume", "q"), 200),
    ("/items/item-1/cancel", ("cancel", "item-1"), 202),
]
PATHS = [path for path, _, _ in CHANGES] + ["/reload", "/loglevel"]


@pytest.mark.parametrize(("path", "call", "status"), CHANGES)
async def test_who_knows_the_token_may_change_the_agent(
    path: str, call: tuple[str, ...], status: int
):
    agent = OperatedAgent()
    async with endpoint(agent) as session:
        assert (await post(session, path))[0] == status
    assert agent.calls == [call]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", "Basic dDprZW4="])
async def test_a_wrong_token_changes_nothing(path: str, given: str):
    agent = OperatedAgent()
    async with (
        endpoint(agent) as session,
        session.post(path, headers={"Authorization": given}) as response,
    ):
        assert response.status == 401
        assert "agent.admin_token_file" in await response.text()
    assert agent.calls == []


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_token_of_its_own_the_agent_refuses_changes_and_names_the_setting(
    path: str,
):
    agent = OperatedAgent()
    async with endpoint(agent, token=None) as session:
        status, text = await post(session, path)
    assert (status, "`agent.admin_token_file`" in text) == (403, True)
    assert agent.calls == []


async def test_reading_has_no_login():
    async with endpoint(OperatedAgent(), token=None) as session:
        for path in ("/livez", "/readyz", "/metrics", "/status", "/queues", "/items"):
            assert (await get(session, path, Authorization=""))[0] == 200
        assert (await get(session, "/debug/tasks"))[0] == 403


async def test_a_drain_has_a_timeout_if_it_is_given_one():
    agent = OperatedAgent()
    async with endpoint(agent) as session:
        for body in ({"timeout_seconds": 90}, {}, {"timeout_seconds": None}):
            assert (await post(session, "/drain", body))[0] == 202
        for body in ({"timeout_seconds": -1}, {"timeout_seconds": 1e12}, {"timeout": 1}, [], "x"):
            assert (await post(session, "/drain", body))[0] == 422
    assert agent.calls == [("drain", "90.0"), ("drain", "None"), ("drain", "None")]


async def test_readers_do_not_keep_changes_waiting():
    agent = OperatedAgent()
    agent.log_held = anyio.Event()
    agent.now = a_view(items=(an_item(1),))
    async with endpoint(agent) as session, anyio.create_task_group() as group:
        for _ in range(MAX_ANSWERS):
            group.start_soon(get, session, "/items/item-1/logs")
        with anyio.fail_after(10):
            while agent.readers < MAX_ANSWERS:
                await anyio.sleep(0.005)
        assert (await get(session, "/status"))[0] == 503
        assert (await post(session, "/drain"))[0] == 202
        agent.log_held.set()


async def test_a_token_that_is_no_text_is_a_wrong_one():
    request = b"POST /drain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n"
    agent = OperatedAgent()
    async with endpoint(agent) as session, await anyio.connect_tcp(*address(session)) as stream:
        await stream.send(request)
        assert (await stream.receive()).startswith(b"HTTP/1.1 401 ")
    assert agent.calls == []


async def test_a_reason_of_the_agent_is_no_fault_of_the_endpoint():
    agent = OperatedAgent()
    agent.changes = AgentUnfit("the journal cannot be written")
    async with endpoint(agent) as session:
        status, text = await post(session, "/reload")
    assert (status, msgspec.json.decode(text)["error"]) == (503, "the journal cannot be written")


async def test_a_fault_of_ours_is_said_and_costs_one_answer():
    agent = OperatedAgent()
    agent.changes = RuntimeError("unforeseen")
    with capture_logs() as logs:
        async with endpoint(agent) as session:
            status, text = await post(session, "/reload")
            assert (await get(session, "/livez"))[0] == 200
    assert (status, "unforeseen" in text) == (500, False)
    assert [line["path"] for line in logs if line["log_level"] == "error"] == ["/reload"]


async def test_a_get_changes_nothing():
    agent = OperatedAgent()
    async with endpoint(agent) as session:
        for path in PATHS:
            assert (await get(session, path))[0] == 405
    assert agent.calls == []


async def test_a_queue_or_an_item_that_is_not_there_is_a_404():
    async with endpoint(OperatedAgent()) as session:
        assert (await post(session, "/queues/other/pause"))[0] == 404
        assert (await post(session, "/items/item-2/cancel"))[0] == 404


async def test_a_reload_answers_with_what_changed_or_with_what_is_wrong():
    agent = OperatedAgent()
    async with endpoint(agent) as session:
        _, text = await post(session, "/reload")
        assert msgspec.json.decode(text) == {"changes": ["max_jobs: 1 -> 2"]}
        agent.changes = ConfigError("f.yaml:3:1: unknown key `max_job`")
        status, text = await post(session, "/reload")
    assert status == 422
    assert "f.yaml:3:1" in text


async def test_the_log_level_is_set_or_refused():
    levels: list[str] = []

    def set_level(level: str) -> None:
        if level != "debug":
            raise ConfigError(f"no level {level}")
        levels.append(level)

    async with endpoint(OperatedAgent(), set_log_level=set_level) as session:
        assert (await post(session, "/loglevel", {"level": "debug"}))[0] == 200
        for body in ({"level": "loud"}, {"levl": "debug"}, [], "x" * 5000):
            assert (await post(session, "/loglevel", body))[0] in (413, 422)
    assert levels == ["debug"]
