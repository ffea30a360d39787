"""The queue service against the real control plane, and its odd answers against a script."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from launch_async.adapters.queues.wandb import RUNS_PER_REQUEST, WandbQueueService, default_entity
from launch_async.agent.poller import MAX_WIDTH
from launch_async.domain.errors import AgentUnfit, Reason, Stage, Unavailable
from launch_async.domain.ids import QueueRef, RunId, RunRef
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.domain.secret import Secret
from launch_async.ports.presence import AgentStatus
from launch_async.ports.queue import RejectedItem
from launch_async.ports.runs import HIDDEN
from launch_async.server.ids import decode_number
from launch_async.wire import operations
from launch_async.wire.answers import Parts
from launch_async.wire.transport import RequestRefused, Transport
from real_server import ENTITY, RealServer, real_server

pytestmark = pytest.mark.anyio

QUEUE = QueueRef(ENTITY, operations.LAUNCH_PROJECT, "q")
SPEC = {"project": "p", "docker": {"docker_image": "img"}}
FAILED = Outcome(failed=True, message="it broke", stage=Stage.RUN, reason=Reason.EXIT_CODE)


@pytest.fixture
async def server(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[RealServer]:
    async with real_server(tmp_path / "server") as running:
        await running.client.upsert_queue("q", resource="local-container", config={})
        yield running


def agent_of(
    transport: Transport, *queues: QueueRef, config: dict[str, Any] | None = None
) -> WandbQueueService:
    return WandbQueueService(
        transport, queues=queues or [QUEUE], hostname="host", agent_config=config or {"max_jobs": 1}
    )


@pytest.fixture
async def agent(server: RealServer) -> WandbQueueService:
    service = agent_of(server.transport)
    await service.register()
    return service


async def popped_one(agent: WandbQueueService) -> Item | RejectedItem | None:
    """What one look finds."""
    [found] = await agent.pop([QUEUE])
    if isinstance(found, Unavailable):
        raise found
    return found


async def popped(server: RealServer, agent: WandbQueueService, **spec: Any) -> Item:
    await server.client.push("q", SPEC | spec)
    item = await popped_one(agent)
    assert isinstance(item, Item)
    return item


async def state(server: RealServer, item: Item) -> str:
    shown = await server.client.item("q", item.id)
    assert shown is not None
    return shown.state


async def sql(server: RealServer, statement: str, **values: Any) -> None:
    async with server.services.store.write() as connection:
        await connection.execute(text(statement), values)


async def test_the_logins_entity_is_found(server: RealServer):
    assert await default_entity(server.transport) == ENTITY


async def test_a_missing_queue_makes_the_agent_unfit_and_is_named(server: RealServer):
    missing = QueueRef(ENTITY, operations.LAUNCH_PROJECT, "gpu")
    with pytest.raises(AgentUnfit, match="no queue gpu in the entity tester; it has: q"):
        await agent_of(server.transport, QUEUE, missing).register()


async def test_a_wrong_key_makes_the_agent_unfit(server: RealServer):
    async with Transport.open(base_url=server.url, api_key=Secret("x" * 40)) as transport:
        with pytest.raises(AgentUnfit, match="refused the API key"):
            await agent_of(transport).register()


async def test_an_item_goes_from_pop_to_its_failure(server: RealServer, agent: WandbQueueService):
    assert await popped_one(agent) is None
    item = await popped(server, agent, name="n")
    assert (item.spec.image, item.spec.name) == ("img", "n")
    assert await agent.ack(item)
    assert await agent.ack(item), "an ack whose answer was lost is repeated"
    await agent.upload(f"{item.id}/error/error.log", b"why")
    await agent.fail(item, FAILED, files=[f"{item.id}/error/error.log"])
    await agent.fail(item, FAILED, files=[])
    shown = await server.client.item("q", item.id)
    assert shown is not None
    assert (shown.state, shown.run_id, shown.message) == ("FAILED", item.run_id, "it broke")


async def test_an_agent_that_slept_through_its_lease_cannot_claim_the_same_run(
    server: RealServer, agent: WandbQueueService
):
    item = await popped(server, agent, run_id="fixed")
    past = "2001-01-01 00:00:00.000000"
    await sql(server, "UPDATE queue_items SET lease_expires_at = :past", past=past)
    other = agent_of(server.transport)
    await other.register()
    again = await popped_one(other)
    assert isinstance(again, Item)
    assert (again.id, again.run_id) == (item.id, RunId("fixed"))
    assert await other.ack(again)
    assert not await agent.ack(item)


async def test_a_claim_is_repeated_and_failed_in_the_next_life(
    server: RealServer, agent: WandbQueueService
):
    item = await popped(server, agent)
    assert await agent.ack(item)
    next_life = agent_of(server.transport)
    assert await next_life.ack(item)
    await next_life.fail(item, FAILED, files=[])
    assert await state(server, item) == "FAILED"


async def test_an_agent_fails_only_what_it_still_holds(
    server: RealServer, agent: WandbQueueService
):
    late = await popped(server, agent)
    past = "2001-01-01 00:00:00.000000"
    await sql(server, "UPDATE queue_items SET lease_expires_at = :past", past=past)
    item = await popped_one(agent)
    assert isinstance(item, Item)
    assert item.lease != late.lease
    for held in (late, RejectedItem(id=late.id, queue=QUEUE, message="?", lease=late.lease)):
        await agent.fail(held, FAILED, files=[])
        assert await state(server, item) == "LEASED"
    await agent.fail(item, FAILED, files=[])
    assert await state(server, item) == "FAILED"


async def test_an_agent_is_the_same_at_its_next_start(server: RealServer):
    config = {"identity": "abc"}
    assert (
        await agent_of(server.transport, config=config).register()
        == await agent_of(server.transport, config=config).register()
    )
    assert (
        await agent_of(server.transport).register() != await agent_of(server.transport).register()
    )


async def test_a_service_that_hands_out_no_leases_is_shown_none(server: RealServer):
    wandbs = WithoutLeases(server.transport)
    agent = agent_of(wandbs)
    await agent.register()
    item = await popped(server, agent)
    assert item.lease is None
    assert await agent.ack(item)
    await agent.fail(item, FAILED, files=[])
    assert await state(server, item) == "FAILED"
    assert wandbs.documents.count(operations.POP_FIELDS) == 1, "it is asked once"
    assert not any("lease" in document for document in wandbs.documents)
    assert not wandbs.headers


async def test_what_cannot_be_understood_is_rejected_by_name(
    server: RealServer, agent: WandbQueueService
):
    item_id = await server.client.push("q", SPEC)
    spec = json.dumps({"entity": 7, "project": "p"})
    await sql(server, "UPDATE queue_items SET run_spec = :spec", spec=spec)
    found = await popped_one(agent)
    assert isinstance(found, RejectedItem)
    assert found.id == item_id
    assert "$.entity" in found.message


async def test_a_deleted_item_cannot_be_claimed(server: RealServer, agent: WandbQueueService):
    item = await popped(server, agent)
    await sql(server, "DELETE FROM queue_items")
    assert not await agent.ack(item)
    await agent.fail(item, FAILED, files=[])


async def test_a_service_that_forgot_the_agent_gets_it_again(
    server: RealServer, agent: WandbQueueService
):
    await sql(server, "DELETE FROM launch_agent_queues")
    await sql(server, "UPDATE queue_items SET agent_id = NULL")
    await sql(server, "DELETE FROM launch_agents")
    assert await agent.beat(AgentStatus.POLLING) is False
    assert await agent.beat(AgentStatus.POLLING) is False
    item = await popped(server, agent)
    assert await agent.ack(item)
    await agent.upload("a/error.log", b"x")


async def test_a_goodbye_does_not_register_again(server: RealServer, agent: WandbQueueService):
    await sql(server, "DELETE FROM launch_agent_queues")
    await sql(server, "DELETE FROM launch_agents")
    assert await agent.beat(AgentStatus.KILLED) is False
    async with server.services.store.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM launch_agents"))).scalar() == 0


async def test_a_stop_of_the_agent_is_heard(server: RealServer, agent: WandbQueueService):
    await sql(server, "UPDATE launch_agents SET stop_polling = 1")
    assert await agent.beat(AgentStatus.RUNNING) is True


class CountingTransport:
    """Counts, and refuses whatever asks for a run of a project that is not ours to see."""

    def __init__(self, transport: Transport | None = None, *, secret: str = "") -> None:
        self.base_url = "http://h"
        self.requests = 0
        self.answers: dict[str, Any] = {}
        self._transport = transport
        self._secret = secret

    async def execute(self, document: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.requests += 1
        if self._secret and self._secret in variables.values():
            raise RequestRefused("permission denied", status=200)
        if self._transport is None:
            return self.answers
        return await self._transport.execute(document, variables)

    async def execute_in_parts(self, document: str, variables: dict[str, Any]) -> Parts:
        return Parts(data=await self.execute(document, variables), errors={})


class WithoutLeases:
    """Answers as W&B's service does, whose pop has no lease to show."""

    def __init__(self, transport: Transport) -> None:
        self.base_url = transport.base_url
        self.documents: list[str] = []
        self.headers: dict[str, str] = {}
        self._transport = transport

    async def execute(
        self,
        document: str,
        variables: dict[str, Any],
        *,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        self.documents.append(document)
        self.headers |= headers or {}
        if document == operations.POP_FIELDS:
            return {"__type": {"fields": [{"name": "runQueueItemId"}, {"name": "runSpec"}]}}
        return await self._transport.execute(document, variables)

    async def execute_in_parts(self, document: str, variables: dict[str, Any]) -> Parts:
        self.documents.append(document)
        return await self._transport.execute_in_parts(document, variables)


async def test_250_runs_are_looked_up_in_3_requests(server: RealServer):
    await server.transport.execute(
        operations.UPSERT_RUN,
        {"name": "r249", "displayName": "d", "project": "p", "entity": ENTITY, "jobType": None},
    )
    counting = CountingTransport(server.transport)
    runs = [RunRef(ENTITY, "p", RunId(f"r{number}")) for number in range(250)]
    found = await agent_of(counting).look_up(runs)
    assert counting.requests == 3
    assert list(found) == [runs[249]]
    assert not found[runs[249]].stop_requested


async def test_a_run_is_asked_to_stop_and_its_item_says_who_wanted_it(
    server: RealServer, agent: WandbQueueService
):
    item = await popped(server, agent)
    assert await agent.ack(item)
    await agent.ask_to_stop(item.run)
    await agent.ask_to_stop(item.run)
    assert (await agent.look_up([item.run]))[item.run].stop_requested
    await agent.fail(item, FAILED, files=[])
    shown = await server.client.item("q", item.id)
    assert shown is not None
    assert (shown.state, shown.message) == ("STOPPED", "it broke")


async def test_a_run_that_cannot_be_asked_to_stop_is_let_be(
    server: RealServer, agent: WandbQueueService
):
    nowhere = RunRef(ENTITY, "p", RunId("nowhere"))
    await agent.ask_to_stop(nowhere)
    assert not await agent.look_up([nowhere])


async def test_a_run_that_we_may_not_see_hides_no_other():
    counting = CountingTransport(secret="private")
    counting.answers = {f"q{n}": {"run": {"state": "running", "stopped": True}} for n in range(100)}
    runs = [RunRef(ENTITY, "p", RunId(f"r{number}")) for number in range(RUNS_PER_REQUEST)]
    runs[42] = RunRef(ENTITY, "private", RunId("r42"))
    found = await agent_of(counting).look_up(runs)
    assert found[runs[42]].state == HIDDEN
    assert not found[runs[42]].stop_requested
    assert all(found[run].stop_requested for run in runs if run != runs[42])


@pytest.mark.parametrize(
    "answer",
    [
        {"p0": {}},
        {"p0": "x"},
        {"p0": {"runQueueItemId": "a"}, "launchAgent": {}},
        {"launchAgent": 7, "q0": {"run": {}}, "createRunFiles": {"files": [], "uploadHeaders": []}},
    ],
)
async def test_an_answer_that_lacks_its_parts_is_an_outage(answer: dict[str, Any]):
    transport = CountingTransport()
    transport.answers = answer
    agent = agent_of(transport)
    agent._hidden_run = RunRef(ENTITY, "p", RunId("hidden"))
    calls = {
        "p0": lambda: popped_one(agent),
        "launchAgent": lambda: agent.beat(AgentStatus.POLLING),
        "q0": lambda: agent.look_up([RunRef(ENTITY, "p", RunId("r"))]),
        "createRunFiles": lambda: agent.upload("a", b""),
    }
    for name in answer:
        if name == "p0" and len(answer) > 1:
            assert isinstance(await popped_one(agent), RejectedItem)
            continue
        with pytest.raises(Unavailable, match="not understood"):
            await calls[name]()


async def test_many_queues_are_looked_into_in_one_request(server: RealServer):
    names = [f"n{number}" for number in range(MAX_WIDTH)]
    for name in names:
        await server.client.upsert_queue(name, resource="local-container", config={})
    queues = [QueueRef(ENTITY, operations.LAUNCH_PROJECT, name) for name in names]
    agent = agent_of(server.transport, *queues)
    await agent.register()
    pushed = await server.client.push("n7", SPEC)
    counted = Counted(server.transport)
    agent._transport = counted  # type: ignore[assignment]
    found = await agent.pop(queues)
    assert counted.requests == 1
    items = {index: item.id for index, item in enumerate(found) if isinstance(item, Item)}
    assert items == {7: pushed}
    assert found.count(None) == len(queues) - 1


async def test_a_queue_that_is_named_twice_gives_its_two_most_urgent_items(
    server: RealServer, agent: WandbQueueService
):
    low, critical, high = [await server.client.push("q", SPEC) for _ in range(3)]
    for item_id, priority in ((low, 3), (critical, 0), (high, 1)):
        row = decode_number(item_id, "RunQueueItem")
        statement = "UPDATE queue_items SET priority = :priority WHERE id = :row"
        await sql(server, statement, priority=priority, row=row)
    found = await agent.pop([QUEUE, QUEUE])
    assert [item.id for item in found if isinstance(item, Item)] == [critical, high]


async def test_a_queue_that_is_gone_keeps_no_item_of_the_others(
    server: RealServer, agent: WandbQueueService
):
    pushed = await server.client.push("q", SPEC)
    gone = QueueRef(ENTITY, operations.LAUNCH_PROJECT, "gone")
    first, second, third = await agent.pop([gone, QUEUE, gone])
    assert isinstance(second, Item)
    assert second.id == pushed
    for error in (first, third):
        assert isinstance(error, Unavailable)
        assert "gone" in str(error)


@pytest.mark.parametrize("count", [1, 4])
async def test_a_refusal_of_the_whole_says_nothing_of_the_queues(server: RealServer, count: int):
    refusing = Counted(server.transport, refuses=True)
    agent = agent_of(refusing)
    await agent.register()
    with pytest.raises(Unavailable, match="refused: too many fields"):
        await agent.pop([QUEUE] * count)
    assert refusing.requests == 1


async def test_other_queues_are_followed_by_the_same_agent(server: RealServer):
    agent = agent_of(server.transport, config={"identity": "abc"})
    name = await agent.register()
    await server.client.upsert_queue("r", resource="local-container", config={})
    other = QueueRef(ENTITY, operations.LAUNCH_PROJECT, "r")
    assert await agent.follow([QUEUE, other]) == name
    with pytest.raises(AgentUnfit, match="no queue gone"):
        await agent.follow([QueueRef(ENTITY, operations.LAUNCH_PROJECT, "gone")])
    assert await agent.register() == name, "it goes on as it was"


class Counted:
    """Counts pops' requests, and may refuse them."""

    def __init__(self, transport: Transport, *, refuses: bool = False) -> None:
        self.base_url = transport.base_url
        self.requests = 0
        self.execute = transport.execute
        self._refuses = refuses
        self._transport = transport

    async def execute_in_parts(self, document: str, variables: dict[str, Any]) -> Parts:
        self.requests += 1
        if self._refuses:
            raise RequestRefused("too many fields", status=400)
        return await self._transport.execute_in_parts(document, variables)
