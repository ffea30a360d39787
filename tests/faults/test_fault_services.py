"""The control plane is sick, or speaks nonsense: rows R14, R18 to R20, R31 of docs/faults.md.

What lasts minutes in the world lasts a second here: the agent's waits are settings.
"""

import json
import time
from typing import Any

import pytest
from fault_harness import Life, Site, wait_until

POP = "popFromRunQueue"
POLL_MAX_SECONDS = 0.5
SLACK_SECONDS = 3.0
"""What a busy machine may add."""
MAX_LAG_SECONDS = 0.25


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_service_that_refuses_for_a_while_is_polled_again_and_hears_all(site: Site, status: int):
    queue = site.queue("local-process")
    go = site.folder / "go"
    item = site.process(queue, "one", until=go, code=3)
    with site.agent(queue) as life:
        site.wait_until_begun("one")
        with site.api.answer("HTTP/1.1", status) as refused:
            refused.wait()
            begin, hits = time.monotonic(), refused.hits
            go.touch()
            wait_until(lambda: "end one" in site.witness.read_text())
            wait_until(lambda: time.monotonic() - begin > 2)
            per_second = (refused.hits - hits) / (time.monotonic() - begin)
        site.process(queue, "two")
        site.wait_until_begun("two", within_seconds=5 * POLL_MAX_SECONDS + 2 * SLACK_SECONDS)
        assert "code 3" in site.end_of(item)["message"]
        life.settled()
        said = life.program.output.count("queues cannot be polled")
    assert per_second < 20
    assert said <= 2, "once per change of state"
    assert site.begun() == {"one": 1, "two": 1}


@pytest.mark.docker
def test_while_the_service_is_away_runs_are_watched_and_their_ends_told_later(site: Site):
    """Half an hour in the world, some seconds here."""
    boxes, processes = site.queue("local-container", "c"), site.queue("local-process", "p")
    go = site.folder / "go"
    box = site.container(boxes, "sleep 2; exit 4")
    process = site.process(processes, "one", until=go, code=3)
    with site.agent(boxes, processes) as life:
        site.wait_until_begun("one")
        site.wait_until_running(box)
        with site.api.down():
            go.touch()
            wait_until(lambda: _phases(life) == ["reporting", "reporting"])
        later = site.container(boxes, "exit 5")
        assert "code 4" in site.end_of(box)["message"]
        assert "code 3" in site.end_of(process)["message"]
        assert "code 5" in site.end_of(later)["message"]
        life.settled()
    assert site.containers() == {}


def _phases(life: Life) -> list[str]:
    return [one["phase"] for one in life.admin.status()["items"]]


def test_a_service_that_takes_long_for_each_call_leaves_loop_and_probes_free(site: Site):
    """20 s in the world, 1 s here; the loop's lag is what the agent itself measures."""
    queue = site.queue("local-process")
    go = site.folder / "go"
    item = site.process(queue, "one", until=go, code=3)
    with site.agent(queue) as life:
        site.wait_until_begun("one")
        with site.api.slow("HTTP/1.1", 1.0):
            go.touch()
            asked = []
            while site.item(item)["state"] != "FAILED":
                begin = time.monotonic()
                assert life.admin.get("/livez")[0] == 200
                asked.append(time.monotonic() - begin)
                assert len(asked) < 1000
        asked.sort()
        assert asked[len(asked) // 2] < MAX_LAG_SECONDS
        life.settled()


SPECS = {
    "no object": '["no", "object"]',
    "no JSON": "{",
    "no job": '{"entity": "e", "project": "p", "resource": "local-process"}',
    "another resource": '{"entity": "e", "project": "p", "resource": "moon", "job": "e/p/j:v0"}',
    "wrong types": '{"entity": 1, "project": [], "job": {}}',
    "huge": json.dumps({"entity": "e", "project": "p", "job": "x" * 4_000_000}),
}


def test_specs_that_nobody_can_run_fail_alone_and_the_agent_goes_on(site: Site):
    """Our server refuses such pushes: what it hands out is altered on the way."""
    queue = site.queue("local-process")
    items = {site.push(queue, job=f"local/jobs/none{n}:v0"): n for n in range(len(SPECS))}

    def alter(answer: Any) -> None:
        for popped in answer["data"].values():
            if popped and popped["runQueueItemId"] in items:
                popped["runSpec"] = list(SPECS.values())[items[popped["runQueueItemId"]]]

    with site.api.edit(POP, alter), site.agent(queue) as life:
        for item, number in items.items():
            ended = site.end_of(item)
            assert ended["state"] == "FAILED", list(SPECS)[number]
            assert ended["message"], list(SPECS)[number]
        good = site.process(queue, "one", code=3)
        assert "code 3" in site.end_of(good)["message"]
        life.settled()
    assert site.begun() == {"one": 1}


def test_one_queue_that_is_gone_and_one_that_is_deep_hold_up_no_other(site: Site):
    """50 queues and 10,000 items in the world; 12 and 30 here."""
    good = [site.queue("local-process", f"n{number}") for number in range(10)]
    gone, deep = site.queue("local-process", "gone"), site.queue("local-process", "deep")
    with site.agent(*good, gone, deep, max_jobs=4) as life:
        life.admin  # noqa: B018 - it polls
        site.fleet.control_plane.ask(DELETE, queue=_id_of(site, gone))
        life.program.wait_for("queues cannot be polled")
        for number in range(30):
            site.process(deep, f"deep{number}")
        for number, queue in enumerate(good):
            site.process(queue, f"one{number}")
        names = [f"one{number}" for number in range(10)]
        site.wait_until_begun(*names, within_seconds=60)
        deep_begun = sum(name.startswith("deep") for name in site.begun())
        assert deep_begun < 30, "they did not wait for the deep queue's end"
    assert set(site.begun().values()) == {1}


def _id_of(site: Site, queue: str) -> str:
    entity = site.fleet.entity
    queues = site.fleet.control_plane.ask(QUEUES, entity=entity)["project"]["runQueues"]
    return next(one["id"] for one in queues if one["name"] == queue)


QUEUES = """query Queues($entity: String!) {
  project(name: "model-registry", entityName: $entity) { runQueues { id name } }
}"""
DELETE = """mutation Delete($queue: ID!) {
  deleteRunQueues(input: { queueIDs: [$queue] }) { success }
}"""
