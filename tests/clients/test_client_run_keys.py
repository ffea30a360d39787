"""Every version of the client does a launched run's work under the run's own key."""

import json
import urllib.request
from typing import Any

import pytest
from clients_harness import ENTITY, Client, LivePlane

pytestmark = pytest.mark.acceptance

RUN = "keyed"
QUEUE = """mutation { upsertRunQueue(input: {entityName: "tester", projectName: "model-registry",
  queueName: "q", resourceType: "local-process", resourceConfig: "{}"}) { success } }"""
PUSH = """mutation { pushToRunQueueByName(input: {entityName: "tester", queueName: "q",
  projectName: "model-registry",
  runSpec: "{\\"entity\\":\\"tester\\",\\"project\\":\\"fresh\\",\\"job\\":\\"a/b/c:latest\\"}"
}) { runQueueItemId } }"""
POP = """mutation { popFromRunQueue(input: {queueName: "q"}) { runQueueItemId runSpec } }"""
ACK = """mutation Ack($item: ID!) {
  ackRunQueueItem(input: {runQueueItemId: $item, runName: "keyed"}) { success } }"""


def ask(plane: LivePlane, query: str, **variables: Any) -> Any:
    request = urllib.request.Request(  # noqa: S310 (our own http address)
        f"{plane.plane.url}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Authorization": f"Bearer {plane.plane.key}"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
        return json.load(reply)["data"]


def test_a_launched_script_needs_no_other_key(client: Client, plane: LivePlane) -> None:
    ask(plane, QUEUE)
    ask(plane, PUSH)
    popped = ask(plane, POP)["popFromRunQueue"]
    assert ask(plane, ACK, item=popped["runQueueItemId"])["ackRunQueueItem"]["success"]
    plane.graphql.asked.clear()
    client.environment |= {
        "WANDB_API_KEY": popped["runSpec"]["_wandb_api_key"],
        "WANDB_ENTITY": ENTITY,
        "WANDB_PROJECT": "fresh",
        "WANDB_RUN_ID": RUN,
        "WANDB_LAUNCH": "True",
    }

    seen = client.facts(RUN)

    expected = {"logged": ["best", "candidate", "latest"], "used": "v0", "read": RUN}
    assert seen == expected
    refused = {query: status for query, status in plane.graphql.asked.items() if status >= 400}
    assert refused == {}
    rows = plane.rows("select state, history_lines, summary from runs")
    ((state, lines, summary),) = rows
    assert (state, lines) == ("finished", 3)
    assert json.loads(summary)["done"] is True
    files = plane.rows("select name from run_files where uploaded_at is not null")
    assert "notes.txt" in {row.name for row in files}
    assert plane.rows("select title from run_alerts") == [("hello",)]
