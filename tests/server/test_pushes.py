"""Pushes: what a spec must say, and what a queue adds to it."""

import json
from typing import Any

import pytest
from launch_harness import WHERE, Launch, spec
from server_harness import Http, Server

from client_documents import client_document

pytestmark = pytest.mark.anyio


@pytest.fixture
def launch(http: Http) -> Launch:
    return Launch(http)


async def test_a_queue_fills_in_the_resource_and_its_arguments(launch: Launch) -> None:
    await launch.queue(kind="local-container", args={"env": ["A=1"], "cpus": 1, "deep": {"a": 1}})
    over = {"local-container": {"env": ["B=2"], "deep": {"b": 2}}}
    status, pushed = await launch.try_push(spec=spec(resource_args=over))
    assert status == 200
    popped = await launch.pop()
    assert popped is not None
    as_popped = {k: v for k, v in popped["runSpec"].items() if k != "_wandb_api_key"}
    assert as_popped == json.loads(pushed["runSpec"])
    assert as_popped == spec(
        resource="local-container",
        resource_args={"local-container": {"env": ["B=2"], "cpus": 1, "deep": {"a": 1, "b": 2}}},
        author="tester",
    )


async def test_the_queues_part_and_the_items_stay_readable_apart(launch: Launch) -> None:
    queue = {"cpus": "{{n}}", "deep": {"a": 1}}
    schema = {"type": "integer", "default": 2}
    await launch.queue(args=queue, variables={"n": {"schema": schema}})
    plain = await launch.push()
    own = {"local-process": {"deep": {"b": [1]}, "cpus": None}}
    with_own = await launch.push(spec=spec(resource_args=own))
    assert (await launch.item(plain))["ownResourceArgs"] == {}
    shown = await launch.item(with_own)
    assert shown["ownResourceArgs"] == own
    assert shown["runSpec"]["resource_args"] == {
        "local-process": {"deep": {"a": 1, "b": [1]}, "cpus": None}
    }


async def test_a_queue_without_a_config_runs_what_the_agent_assumes(
    launch: Launch, http: Http
) -> None:
    made = await http.data(
        client_document("CreateRunQueue.core"),
        entity="tester",
        project="model-registry",
        queueName="default",
        access="PROJECT",
    )
    assert made["createRunQueue"]["success"]
    await launch.push("default")
    popped = await launch.pop("default")
    assert popped is not None
    assert popped["runSpec"]["resource"] == "local-container"
    assert popped["runSpec"]["resource_args"] == {"local-container": {}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"entity": None}, "has no entity"),
        ({"project": ""}, "has no project"),
        ({"project": "a/b"}, "a project name may not contain"),
        ({"project": "x" * 129}, "a project name has 1 to 128 characters"),
        ({"entity": "stranger"}, "there is no entity 'stranger'"),
        ({"job": None}, "has nothing to run"),
        ({"docker": {"docker_image": "i:1"}}, "names job and docker.docker_image"),
        ({"image_uri": "i:1"}, "names job and image_uri"),
        ({"job": None, "uri": "https://git.example.com/x"}, "make a job of it first"),
        ({"resource": "kubernetes"}, "asks for resource 'kubernetes', but queue 'q' runs"),
        ({"resource": "slurm"}, "resource type 'slurm' is not one of"),
        ({"resource_args": {"kubernetes": {}}}, "has 'kubernetes', but queue 'q' runs"),
        ({"resource_args": {"local-process": []}}, "resource_args.local-process must be"),
        ({"resource_args": []}, "must be an object"),
    ],
)
async def test_a_wrong_spec_is_refused_with_its_reason_on_both_ways(
    launch: Launch, http: Http, server: Server, changes: dict[str, Any], reason: str
) -> None:
    await launch.queue()
    status, message = await launch.try_push(spec=spec(**changes))
    again = await http.ask(
        client_document("pushToRunQueue.api"),
        queueID=await launch.queue_id(),
        runSpec=json.dumps(spec(**changes)),
    )
    assert status == again.status in {400, 403}
    assert reason in message
    assert again.json()["errors"][0]["message"] == message
    assert await server.rows("select * from queue_items") == []


@pytest.mark.parametrize("text", ["[]", "3", '"text"'])
async def test_a_spec_is_an_object(launch: Launch, http: Http, text: str) -> None:
    await launch.queue()
    reply = await http.ask(
        client_document("pushToRunQueueByName.api"), **WHERE, queueName="q", runSpec=text
    )
    assert reply.status == 400
    assert "must be a JSON object" in reply.json()["errors"][0]["message"]


async def test_a_sweeps_scheduler_runs_where_it_says(launch: Launch) -> None:
    await launch.queue(kind="kubernetes", args={"spec": {}})
    scheduler = spec(job=None, uri="placeholder-uri-scheduler", resource="local-process")
    await launch.push(spec=scheduler)
    popped = await launch.pop()
    assert popped is not None
    assert popped["runSpec"]["resource_args"] == {"local-process": {}}


async def test_template_values_are_filled_in_at_the_push(launch: Launch) -> None:
    schema = {"type": "integer", "maximum": 8}
    await launch.queue(args={"gpus": "{{n}}"}, variables={"n": {"schema": schema}})
    await launch.push(templateVariableValues='{"n": 2}')
    popped = await launch.pop()
    assert popped is not None
    assert popped["runSpec"]["resource_args"] == {"local-process": {"gpus": 2}}
    status, message = await launch.try_push(templateVariableValues='{"n": 9}')
    assert (status, message) == (400, "template variable 'n': 9 is more than 8")
    status, message = await launch.try_push()
    assert status == 400
    assert "--set-var n=VALUE" in message
    await launch.push(spec=spec(resource_args={"local-process": {"gpus": 1}}))


async def test_a_priority_needs_a_queue_that_takes_them(launch: Launch) -> None:
    await launch.queue()
    await launch.push(priority=2)
    status, message = await launch.try_push(priority=0)
    assert status == 400
    assert "takes no priorities" in message
    await launch.queue(mode="V0")
    assert (await launch.try_push(priority=7))[0] == 400
    item = await launch.push(priority=0)
    assert (await launch.item(item))["priority"] == 0


async def test_a_missing_queue_says_how_to_make_it(launch: Launch) -> None:
    status, message = await launch.try_push("nowhere")
    assert status == 404
    assert "'nowhere'" in message
    assert "create_run_queue" in message


async def test_an_author_that_is_named_stays(launch: Launch) -> None:
    await launch.queue()
    await launch.push(spec=spec(author="somebody"))
    popped = await launch.pop()
    assert popped is not None
    assert popped["runSpec"]["author"] == "somebody"
