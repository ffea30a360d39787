"""The API server is sick, slow or forgetful while an agent has runs in its cluster.

Rows R10, R12 to R14, R16, R27, R28 and R30 of docs/faults.md: server and agent are processes, the
API server is a real one behind a proxy, pods run on nodes without containers unless a row needs
some. All rows strike the same life of the agent, so that what one leaves behind shows in the next.
What lasts minutes in the world lasts seconds here.
"""

import time
from collections.abc import Iterator

import pytest
from agent_harness import PROJECT, RunningAgent
from cluster_tools import Cluster
from kube_field import Field, Told

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("cluster_share")]

MAX_REQUEUES = 1
OUTAGE_SECONDS = 3.0
RUNS = """\
import wandb
for run, exit_code in {ends}.items():
    wandb.init(project="{project}", id=run).finish(exit_code=exit_code)
"""


@pytest.fixture(scope="module")
def agent(field: Field) -> Iterator[RunningAgent]:
    limits = {"image": 1, "unschedulable": 1}
    with field.life(start_timeouts=limits, item_retries=MAX_REQUEUES) as running:
        yield running


@pytest.fixture(autouse=True)
def witnessed(field: Field, cluster_share: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing can have been missed but while the API server itself was away."""
    field.audit.wait_until_watching()
    before = field.audit.gaps
    yield
    assert field.audit.gaps == before or "cluster_alone" in request.fixturenames


def test_watches_that_are_too_old_lose_no_end(field: Field, agent: RunningAgent) -> None:
    """R10: 410 as an event, then for the next watches, then for lists."""
    codes = {field.run(): code for code in (3, 4, 5)}
    field.wait_until_running(*codes)
    with (
        field.proxy.answer("watch", field.watched, 410, reason="Expired", times=4) as watches,
        field.proxy.answer("list", field.watched, 410, reason="Expired", times=2) as lists,
    ):
        field.wait_for_watches()
        assert field.proxy.expire(field.watched) == 2
        for item, code in codes.items():
            field.end_pod(item, exit_code=code)
        for item, code in codes.items():
            assert f"code {code}" in field.end_of(item)["message"]
        assert (watches.hits, lists.hits) == (4, 2)
    field.assert_settled(agent)
    field.assert_made_once(list(codes))


def test_watches_that_break_or_bring_nonsense_lose_no_end(
    field: Field, agent: RunningAgent
) -> None:
    """R12: cut in mid-line, no JSON, a type of the future, a bookmark and no more."""
    jobs = f"/apis/batch/v1/namespaces/{field.namespace}/jobs"
    version = field.cluster.get(jobs)["metadata"]["resourceVersion"]
    bookmark = f'{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{version}"}}}}}}'
    lines = (b"no json", b'{"type":"FUTURE","object":{"metadata":{}}}', bookmark.encode())
    items = [field.run() for _ in range(4)]
    field.wait_until_running(*items)
    for item, line in zip(items, (None, *lines), strict=True):
        field.wait_for_watches()
        if line is None:
            assert field.proxy.cut(field.watched)
        else:
            assert field.proxy.inject(field.watched, line)
        if line == lines[-1]:
            assert field.proxy.cut(field.watched, in_line=False)
        field.end_pod(item, exit_code=3)
        assert "code 3" in field.end_of(item)["message"]
    field.assert_settled(agent)
    field.assert_made_once(items)


def test_what_ends_and_goes_while_nobody_can_look_has_vanished(
    field: Field, agent: RunningAgent
) -> None:
    """R13, and what is known meanwhile: nothing, which ends no run."""
    gone, ended = field.run(runs_for="1s"), field.run(runs_for="1s", exit_code=4)
    field.wait_until_running(gone, ended)
    with field.proxy.down():
        field.wait_until_over(gone, ended)
        job = field.job(gone)
        field.cluster.delete(job)
        field.cluster.wait_gone(job)
        field.wait_for_readiness(agent, ready=False)
        assert {field.item(item)["state"] for item in (gone, ended)} == {"CLAIMED"}
    assert "nobody" in field.end_of(gone)["message"] or "deleted" in field.item(gone)["message"]
    assert "code 4" in field.end_of(ended)["message"]
    field.wait_for_readiness(agent, ready=True)
    field.assert_settled(agent)
    field.assert_made_once([gone, ended])


def test_what_ends_and_goes_while_nobody_can_look_ends_as_its_run_says(
    field: Field, agent: RunningAgent
) -> None:
    """R13, with runs of the real client: one finishes, one fails; their Jobs are cleaned up."""
    finished, failed = field.run(), field.run()
    field.wait_until_running(finished, failed)
    told = Told(agent)
    ends = {field.item(finished)["associatedRunId"]: 0, field.item(failed)["associatedRunId"]: 2}
    # What a watch would still tell is not to be had: it must list anew.
    with field.proxy.answer("watch", field.watched, 410, reason="Expired", times=2):
        with field.proxy.down():
            field.fleet.shell.run("python", "-c", RUNS.format(project=PROJECT, ends=ends))
            for item in (finished, failed):
                field.cluster.delete(field.job(item))
                field.cluster.wait_gone(field.job(item))
        agent.wait_for_status("items", [], within_seconds=40)
    assert field.end_of(finished)["state"] == "FINISHED"
    assert "run says that it failed" in field.end_of(failed)["message"]
    assert (told.reason_of(finished), told.reason_of(failed)) == ("succeeded", "exit_code")
    field.assert_settled(agent)
    field.assert_made_once([finished, failed])


@pytest.mark.parametrize("status", [500, 503])
def test_a_sick_api_server_gets_few_calls_and_nothing_is_lost(
    field: Field, agent: RunningAgent, status: int
) -> None:
    """R14: while everything fails, one run ends and others are to begin."""
    told = Told(agent)
    first = field.run(runs_for="2s")
    field.wait_until_running(first)
    with field.proxy.answer("*", ".", status) as sick:
        field.proxy.cut(field.watched, in_line=False)
        later = [field.run(runs_for="0s", exit_code=code) for code in (4, 5)]
        sick.wait()
        begin, hits = time.monotonic(), sick.hits
        field.wait_until_over(first)
        time.sleep(max(0.0, begin + OUTAGE_SECONDS - time.monotonic()))
        per_second = (sick.hits - hits) / (time.monotonic() - begin)
        assert field.item(first)["state"] == "CLAIMED"
    assert per_second < 10
    for item, code in zip([first, *later], (3, 4, 5), strict=True):
        assert f"code {code}" in field.end_of(item)["message"]
    field.assert_settled(agent)
    field.assert_made_once([first, *later])
    assert told.count("calls are held back") <= 1
    assert told.count("kubernetes watch lost") <= 2, "once for each of its watches"


@pytest.mark.parametrize("asked", [2.0, None])
def test_an_api_server_that_wants_quiet_gets_it(
    field: Field, agent: RunningAgent, asked: float | None
) -> None:
    """R14: 429 with and without Retry-After."""
    begun = len(field.proxy.requests)
    with field.proxy.answer("create", "/jobs$", 429, retry_after=asked, times=1):
        item = field.run(runs_for="0s")
        assert "code 3" in field.end_of(item)["message"]
    made = [(one.verb, one.at) for one in field.proxy.requests[begun:] if one.resource == "jobs"]
    first, second = (at for verb, at in made if verb == "create")
    assert second - first >= (asked or 1.0) - 0.1
    field.assert_settled(agent)
    field.assert_made_once([item])


def test_a_verb_that_is_missing_costs_only_what_it_is_for(
    field: Field, agent: RunningAgent
) -> None:
    """R16: neither Secrets can be deleted, nor logs and events be read; each is said once."""
    told = Told(agent)
    with (
        field.proxy.answer("delete", "/secrets/", 403, message="cannot delete secrets"),
        field.proxy.answer("get", "/log$", 403, message="cannot get pods/log"),
        field.proxy.answer("list", "/events$", 403, message="cannot list events"),
    ):
        items = [field.run(runs_for="0s") for _ in range(3)]
        for item in items:
            assert "code 3" in field.end_of(item)["message"]
        agent.wait_for_status("items", [], within_seconds=10)
        assert told.count("cannot delete secrets") == 1
    for item in items:
        field.cluster.delete(field.job(item))
    field.assert_no_secrets()
    field.assert_settled(agent)
    field.assert_made_once(items)


def test_what_its_cluster_takes_away_is_queued_again_as_often_as_allowed(
    field: Field, agent: RunningAgent
) -> None:
    """R27: evicted as by a drain; a program that needs too much memory is no such case."""
    greedy = field.run(runs_for="1s", exit_code=137, reason="OOMKilled")
    item = field.run()
    seen = [item]
    for _ in range(MAX_REQUEUES + 1):
        field.wait_until_running(item)
        field.evict(item)
        ended = field.end_of(item)
        assert ended["state"] == "FAILED"
        assert "evicted" in ended["message"]
        if len(seen) <= MAX_REQUEUES:
            item = field.successor(item, [*seen, greedy])
            seen.append(item)
    assert "memory limit" in field.end_of(greedy)["message"]
    field.assert_settled(agent)
    assert field.queued_since([*seen, greedy]) == []
    field.assert_made_once([*seen, greedy])


def test_what_cannot_begin_is_warned_of_and_ended_by_its_cause(
    field: Field, agent: RunningAgent
) -> None:
    """R28: no such image, no such machine."""
    gpu = {"containers": [{"resources": {"limits": {"example.com/gpu": 1}}}]}
    image = "127.0.0.1:9/none:1"
    cases = {
        "image": (field.push(field.real_queue, {}, image=image), image),
        "unschedulable": (field.push(field.queue, {"template": {"spec": gpu}}), "example.com/gpu"),
    }
    for cause, (item, words) in cases.items():
        ended = field.end_of(item, within_seconds=60)
        assert ended["state"] == "FAILED"
        assert f"agent.start_timeouts.{cause}" in ended["message"]
        assert words in ended["message"]
        assert any(words in warning for warning in field.warnings(item)), cause
    field.assert_settled(agent)


def test_what_somebody_deletes_has_failed_and_its_slot_is_free(
    field: Field, agent: RunningAgent
) -> None:
    """R30: the Job, its pod alone."""
    job, pod = field.run(), field.run()
    field.wait_until_running(job, pod)
    names = field.job(job).rpartition("/")[2], field.pod(pod)
    field.cluster.kubectl("delete", "job", names[0], "--wait=false", namespace=field.namespace)
    field.cluster.kubectl("delete", "pod", names[1], "--wait=false", namespace=field.namespace)
    for item in (job, pod):
        ended = field.end_of(item)
        assert ended["state"] == "FAILED"
        assert "deleted by somebody else" in ended["message"]
    field.assert_settled(agent)
    field.assert_made_once([job, pod])


def test_an_api_server_and_an_etcd_that_are_killed_lose_no_run(
    field: Field, agent: RunningAgent, cluster_alone: Cluster
) -> None:
    ending = [field.run(runs_for="4s", exit_code=code) for code in range(3, 9)]
    going = [field.run() for _ in range(3)]
    field.wait_until_running(*ending, *going)
    cluster_alone.restart("apiserver", "KILL")
    cluster_alone.restart("etcd", "KILL")
    field.wait_until_told_over(*ending)
    for code, item in enumerate(ending, start=3):
        assert f"code {code}" in field.end_of(item)["message"]
    assert {field.item(item)["state"] for item in going} == {"CLAIMED"}
    for item in going:
        field.end_pod(item, exit_code=9)
        assert "code 9" in field.end_of(item)["message"]
    field.assert_settled(agent)
    field.assert_made_once([*ending, *going])
