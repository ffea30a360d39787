"""Items that are queued again and warned of: our control plane, and a service like W&B's."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from launch_async.adapters.queues.requeues import WandbRequeues
from launch_async.adapters.queues.wandb import WandbQueueService
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.wire import operations
from launch_async.wire.transport import RequestRefused
from real_server import ENTITY, RealServer, real_server

pytestmark = pytest.mark.anyio

QUEUE = QueueRef(ENTITY, operations.LAUNCH_PROJECT, "q")
SPEC = {"project": "p", "docker": {"docker_image": "img"}, "sweep_id": "s", "git": {"version": "v"}}
PREEMPTED = Outcome(
    failed=True, message="preempted", stage=Stage.RUN, reason=Reason.PREEMPTED, again=True
)

CANCEL = """
mutation Cancel($item: ID!) { cancelRunQueueItem(input: { runQueueItemId: $item }) { success } }
"""
ITEM = """
query Item($entity: String!, $project: String!, $item: ID!) {
  project(entityName: $entity, name: $project) { runQueue(name: "q") {
    runQueueItem(id: $item) { state message warnings { message } }
  } }
}
"""


@pytest.fixture
async def server(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[RealServer]:
    async with real_server(tmp_path / "server") as running:
        await running.client.upsert_queue("q", resource="local-container", config={})
        yield running


async def agent_at(transport: Any) -> WandbQueueService:
    service = WandbQueueService(transport, queues=[QUEUE], hostname="host", agent_config={})
    await service.register()
    return service


async def claimed(service: WandbQueueService) -> Item:
    (item,) = await service.pop([QUEUE])
    assert isinstance(item, Item)
    assert await service.ack(item)
    return item


async def shown(server: RealServer, item: Item) -> dict[str, Any]:
    variables = {"entity": ENTITY, "project": QUEUE.project, "item": item.id}
    answer = await server.transport.execute(ITEM, variables)
    found: dict[str, Any] = answer["project"]["runQueue"]["runQueueItem"]
    return found


class LikeWandbs:
    """Our control plane without what W&B's service does not have."""

    def __init__(self, server: RealServer) -> None:
        self._transport = server.transport
        self.base_url = server.transport.base_url
        self.pushes = 0
        self.lose_answers = False

    async def execute(self, document: str, variables: dict[str, Any], **more: Any) -> Any:
        if "__type" in document:
            raise RequestRefused("introspection is switched off", status=400)
        answer = await self._transport.execute(document, variables, **more)
        if "pushToRunQueueByName" in document:
            self.pushes += 1
            if self.lose_answers:
                raise Unavailable("the answer was lost")
        return answer

    async def execute_in_parts(self, document: str, variables: dict[str, Any]) -> Any:
        return await self._transport.execute_in_parts(document, variables)


async def test_our_control_plane_queues_a_preempted_run_once(server: RealServer):
    service = await agent_at(server.transport)
    requeues = WandbRequeues(server.transport, service)
    await server.client.push("q", SPEC)
    item = await claimed(service)
    assert item.sent is None, "the server keeps the spec"
    assert await requeues.repeatable()
    for _ in range(2):
        await requeues.requeue(item, PREEMPTED, files=["a/error.log"])
    again = await claimed(service)
    assert (again.run_id, again.spec.resume_count, again.spec.sweep_id) == (item.run_id, 1, None)
    assert await shown(server, item) == {
        "state": "FAILED",
        "message": "preempted",
        "warnings": [],
    }
    assert await service.pop([QUEUE]) == [None]
    await requeues.requeue(again, PREEMPTED, files=[])
    assert (await claimed(service)).spec.resume_count == 2


async def test_what_its_user_stopped_is_not_queued_again(server: RealServer):
    service = await agent_at(server.transport)
    requeues = WandbRequeues(server.transport, service)
    await server.client.push("q", SPEC)
    item = await claimed(service)
    await server.transport.execute(CANCEL, {"item": item.id})
    assert await requeues.repeatable()
    with pytest.raises(ItemError, match="only one that failed is resumed"):
        await requeues.requeue(item, PREEMPTED, files=[])
    assert await service.pop([QUEUE]) == [None]


async def test_elsewhere_the_same_spec_is_pushed_again_with_the_run_and_its_count(
    server: RealServer,
):
    transport = LikeWandbs(server)
    service = await agent_at(transport)
    requeues = WandbRequeues(transport, service)  # type: ignore[arg-type]
    await server.client.push("q", SPEC)
    item = await claimed(service)
    assert item.sent is not None
    assert not await requeues.repeatable()
    await requeues.requeue(item, PREEMPTED, files=[])
    again = await claimed(service)
    assert (again.run_id, again.spec.resume_count, again.spec.sweep_id) == (item.run_id, 1, None)
    assert again.sent is not None
    before, after = (msgspec.json.decode(one.sent.reveal()) for one in (item, again))
    changed = {"run_id", "_resume_count", "sweep_id", "_wandb_api_key"}
    assert {k: v for k, v in before.items() if k not in changed} == {
        k: v for k, v in after.items() if k not in changed
    }


async def test_elsewhere_a_push_whose_answer_is_lost_is_not_repeated(server: RealServer):
    transport = LikeWandbs(server)
    transport.lose_answers = True
    service = await agent_at(transport)
    requeues = WandbRequeues(transport, service)  # type: ignore[arg-type]
    await server.client.push("q", SPEC)
    item = await claimed(service)
    with pytest.raises(Unavailable):
        await requeues.requeue(item, PREEMPTED, files=[])
    assert transport.pushes == 1


async def test_a_warning_shows_with_the_item_once(server: RealServer):
    service = await agent_at(server.transport)
    await server.client.push("q", SPEC)
    item = await claimed(service)
    for _ in range(2):
        await service.warn(item, "no wandb")
    assert (await shown(server, item))["warnings"] == [{"message": "no wandb"}]
