"""Queues' resource configs: read from the real control plane, kept a while, and odd answers."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from launch_async.adapters.queues.resource_configs import WandbQueueConfigs
from launch_async.domain.errors import Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.domain.policy import QueueDefaults, refusals
from launch_async.domain.secret import Secret
from launch_async.wire.codec import decode_run_spec
from launch_async.wire.operations import LAUNCH_PROJECT
from launch_async.wire.transport import Transport
from real_server import ENTITY, RealServer, real_server
from wire.scripted_api import ScriptedApi, scripted_api

pytestmark = pytest.mark.anyio

QUEUE = QueueRef(ENTITY, LAUNCH_PROJECT, "q")
METADATA = {"data": {"project": {"runQueue": {"id": "1", "defaultResourceConfigID": "c"}}}}


@pytest.fixture
async def server(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[RealServer]:
    async with real_server(tmp_path / "server") as running:
        yield running


@pytest.fixture
async def api(anyio_backend: str) -> AsyncGenerator[ScriptedApi]:
    async with scripted_api() as running:
        yield running


@pytest.fixture
async def transport(api: ScriptedApi) -> AsyncGenerator[Transport]:
    async with Transport.open(base_url=api.url, api_key=Secret("k" * 40), max_tries=1) as opened:
        yield opened


def answer_of(config: Any, resource: str = "kubernetes", variables: Any = None) -> dict[str, Any]:
    node = {"resource": resource, "config": config, "templateVariables": variables}
    return {"data": {"entity": {"defaultResourceConfig": node}}}


async def test_the_config_of_a_queue_is_what_its_admin_wrote(server: RealServer):
    config = {"memory": "{{size}}", "env": {"A": "1"}}
    await server.client.upsert_queue("q", resource="local-container", config=config)
    read = await WandbQueueConfigs(server.transport).defaults_of(QUEUE)
    assert read == QueueDefaults(resource="local-container", args=config)


async def test_what_was_read_is_kept_until_somebody_wants_it_fresh(
    api: ScriptedApi, transport: Transport
):
    configs = WandbQueueConfigs(transport)
    api.then(body=METADATA).then(body=answer_of({"resource_args": {"kubernetes": {"a": 1}}}))
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(configs.defaults_of, QUEUE)
    assert len(api.requests) == 2
    await configs.defaults_of(QUEUE, fresh=True)
    assert len(api.requests) == 2, "what was read this moment is fresh"


async def test_what_is_old_is_read_again(api: ScriptedApi, transport: Transport):
    configs = WandbQueueConfigs(transport, keep_seconds=0)
    for number in (1, 2):
        args = {"resource_args": {"kubernetes": {"a": number}}}
        api.then(body=METADATA).then(body=answer_of(args))
        read = await configs.defaults_of(QUEUE)
        assert read is not None
        assert read.args == {"a": number}


async def test_documents_may_come_as_text(api: ScriptedApi, transport: Transport):
    schema = '{"type": "string", "enum": ["a"]}'
    config = '{"resource_args": {"kubernetes": {"x": "{{v}}"}}}'
    api.then(body=METADATA).then(
        body=answer_of(config, variables=[{"name": "v", "schema": schema}])
    )
    read = await WandbQueueConfigs(transport).defaults_of(QUEUE)
    variables = {"v": {"type": "string", "enum": ["a"]}}
    assert read == QueueDefaults(resource="kubernetes", args={"x": "{{v}}"}, variables=variables)


@pytest.mark.parametrize(
    "answers",
    [
        [{"errors": [{"message": "no"}]}],
        [{"data": {"project": None}}],
        [METADATA, {"data": {"entity": {"defaultResourceConfig": None}}}],
        [METADATA, answer_of("no json")],
        [METADATA, answer_of({}, variables=[{"name": "v", "schema": {"minimum": "1"}}])],
        [METADATA, answer_of({"resource_args": {"kubernetes": {"x": "y" * (1 << 20)}}})],
    ],
)
async def test_a_config_that_is_not_shown_is_none_and_that_is_said_once(
    api: ScriptedApi, transport: Transport, answers: list[Any]
):
    configs = WandbQueueConfigs(transport, keep_seconds=0)
    with capture_logs() as logs:
        for _ in range(2):
            for answer in answers:
                api.then(body=answer)
            assert await configs.defaults_of(QUEUE) is None
    assert len([line for line in logs if "cannot be read" in line["event"]]) == 1


async def test_an_outage_is_no_answer_and_not_asked_again_at_once(
    api: ScriptedApi, transport: Transport
):
    configs = WandbQueueConfigs(transport)
    api.then(status=503, body={"error": "away"})
    for _ in range(3):
        with pytest.raises(Unavailable, match="503"):
            await configs.defaults_of(QUEUE)
    assert len(api.requests) == 1


async def test_a_service_that_is_silent_is_not_waited_for_without_an_end(
    api: ScriptedApi, transport: Transport
):
    hangs = anyio.Event()

    async def hang(_: web.Request) -> web.Response:
        await hangs.wait()
        return web.json_response({})

    api.script.append(hang)
    configs = WandbQueueConfigs(transport, read_seconds=0.05)
    with anyio.fail_after(5), pytest.raises(Unavailable, match="did not come in time"):
        await configs.defaults_of(QUEUE)
    hangs.set()


async def test_of_many_queues_only_the_latest_are_kept(api: ScriptedApi, transport: Transport):
    configs = WandbQueueConfigs(transport, max_queues=2)
    for name in ("a", "b", "c", "c", "a"):
        api.then(body={"data": {"project": None}})
        await configs.defaults_of(QueueRef(ENTITY, LAUNCH_PROJECT, name))
    assert len(api.requests) == 4


async def test_a_queue_may_be_let_go_while_it_is_read(api: ScriptedApi, transport: Transport):
    a, b = (QueueRef(ENTITY, LAUNCH_PROJECT, name) for name in "ab")
    asked, told = anyio.Event(), anyio.Event()

    async def slowly(_: web.Request) -> web.Response:
        asked.set()
        await told.wait()
        return web.json_response({"data": {"project": None}})

    configs = WandbQueueConfigs(transport, max_queues=1, keep_seconds=0)
    await configs.defaults_of(a)
    api.script.append(slowly)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(configs.defaults_of, a)
        await asked.wait()
        await configs.defaults_of(b)
        told.set()
    assert await configs.defaults_of(b) is None


POP = """mutation Pop($entity: String!, $queue: String!) {
  popFromRunQueue(input: {
    entityName: $entity, projectName: "model-registry", queueName: $queue
  }) { runSpec }
}"""
UPSERT = """mutation Upsert($entity: String!, $config: JSONString!, $variables: JSONString!) {
  upsertRunQueue(input: {
    entityName: $entity, projectName: "model-registry", queueName: "q",
    resourceType: "local-container", resourceConfig: $config, templateVariables: $variables
  }) { success }
}"""


async def test_an_item_as_it_was_pushed_has_nothing_of_its_own_beyond_the_queues_templates(
    server: RealServer,
):
    config = {"command": "run {{mode}}", "network": "{{net}}", "memory": "1g"}
    variables = {
        "mode": {"schema": {"type": "string", "enum": ["fast", "slow"], "default": "fast"}},
        "net": {"schema": {"type": "string", "enum": ["none", "bridge"], "default": "none"}},
    }
    await server.transport.execute(
        UPSERT,
        {
            "entity": ENTITY,
            "config": json.dumps({"resource_args": {"local-container": config}}),
            "variables": json.dumps(variables),
        },
    )
    for own in ({}, {"local-container": {"command": "run evil"}}):
        image = {"docker": {"docker_image": "img"}}
        await server.client.push("q", {"project": "p", "resource_args": own, **image})
    defaults = await WandbQueueConfigs(server.transport).defaults_of(QUEUE)
    refused: list[tuple[str, ...]] = []
    for _ in range(2):
        answer = await server.transport.execute(POP, {"entity": ENTITY, "queue": "q"})
        spec = decode_run_spec(answer["popFromRunQueue"]["runSpec"])
        refused.append(refusals(spec, defaults))
    assert refused == [(), ("command",)]
