"""An item's state in every order of events: the table of domain/lease.py, lived through."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launch_harness import Launch
from server_harness import Http

from client_documents import client_document
from launch_async.server.ids import encode_run_id

pytestmark = pytest.mark.anyio

OVER = {"FINISHED", "FAILED", "STOPPED"}
WORDS: dict[str, dict[str, Any]] = {
    "beat": {},
    "finish": {"complete": True, "exitcode": 0},
    "break": {"complete": True, "exitcode": 1},
}
AFTER_WORD = {"beat": {"RUNNING"}, "finish": {"FINISHED"}, "break": {"FAILED", "STOPPED"}}
EVENTS = st.sampled_from(["pop", "lapse", "ack", "fail", "stop", "delete run", *WORDS])
numbers = iter(range(1_000_000))


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(EVENTS, min_size=5, max_size=10))
async def test_an_item_keeps_its_promises_in_any_order(http: Http, events: list[str]) -> None:
    launch, number = Launch(http), next(numbers)
    queue, run = f"q{number}", f"r{number}"
    await launch.queue(queue)
    item = await launch.push(queue)
    acked = failed = False
    for event in events:
        before = (await launch.item(item, queue))["state"]
        success = await happen(launch, event, queue=queue, item=item, run=run)
        if event == "pop":
            assert success is (before == "PENDING")
        if event == "ack" and success:
            assert before in {"PENDING", "LEASED", "CLAIMED", "RUNNING"}
        acked = acked or (event == "ack" and success)
        failed = failed or (event == "fail" and before in {"LEASED", "CLAIMED", "RUNNING"})
        check(await launch.item(item, queue), event, acked=acked, failed=failed)


async def happen(launch: Launch, event: str, *, queue: str, item: str, run: str) -> bool:
    """Let one thing happen; tell whether it did."""
    match event:
        case "pop":
            return await launch.popped_id(queue) is not None
        case "lapse":
            await launch.lapse(item)
        case "ack":
            return await launch.ack(item, run)
        case "fail":
            return await launch.fail(item)
        case "stop" | "delete run":
            document = client_document("StopRun.core" if event == "stop" else "DeleteRun.plain")
            await launch.http.ask(document, id=encode_run_id(run, "target", "tester"))
        case word:
            assert (await launch.http.stream(run, WORDS[word], "target")).status == 200
    return True


def check(shown: dict[str, Any], event: str, *, acked: bool, failed: bool) -> None:
    """Hold an item against what was promised of it."""
    after = shown["state"]
    assert (shown["endedAt"] is not None) is (after in OVER)
    assert after not in {"CLAIMED", "RUNNING", "FINISHED"} or acked
    assert after not in {"PENDING", "LEASED"} or not acked
    if failed:
        assert after in {"FAILED", "STOPPED"}, "the agent's word is the last"
    elif acked and event in WORDS:
        assert after in AFTER_WORD[event]
    elif acked and event == "delete run":
        assert after != "RUNNING", "a run that is gone runs nothing"
