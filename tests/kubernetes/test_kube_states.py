"""The tables of what a cluster shows of a run and what that means, and the page drawn from them.

Redraw docs/kubernetes-states.md after a change of a table by running this file.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launch_async.adapters.runners.kubernetes.causes import WAITING
from launch_async.adapters.runners.kubernetes.events_text import (
    event_warnings,
    refusal_words,
    scheduler_words,
)
from launch_async.adapters.runners.kubernetes.objects import (
    Condition,
    Custom,
    Event,
    Job,
    JobSpec,
    JobStatus,
    Pod,
    unix_time,
)
from launch_async.adapters.runners.kubernetes.states import in_indexes
from launch_async.adapters.runners.kubernetes.verdicts import judge, judge_gone
from launch_async.adapters.runners.kubernetes.words import WORDS, Word
from launch_async.domain.errors import Reason
from launch_async.domain.run import RunEnd, RunState, RunStatus, StartCause

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "kubernetes-states.md"
KINDS: dict[str, Any] = {"job": Job, "pod": Pod, "custom": Custom}

HEAD = """# What Kubernetes shows of a run, and what the agent makes of it

Drawn from `tests/kubernetes/*states.yaml` by `tests/kubernetes/test_kube_states.py`; do not edit.

* A Job is over when its condition `Complete` or `Failed` says so, never by counting: a failed pod
  is no failed Job. Its exit code is that of the pod that decided: the first failure beyond
  `backoffLimit`, the one that a failure policy names, or the last one of a failed index.
* The exit code of a pod is that of its main container: the one that the annotation
  `kubectl.kubernetes.io/default-container` names, else the first one whose name is not a sidecar's.
  Init containers with `restartPolicy: Always` count last.
* `preempted` sends the item back to its queue with the same run, as often as `agent.item_retries`
  says; only when the run as a whole is over because of that. The other [reasons](reasons.md) fail
  it.
* What ended and was cleaned up while nobody watched, as in a gap of the watch or of the agent's
  life, is lost: its W&B run says how the item ends. If that tells of no end within some seconds,
  the item fails as `vanished`. What somebody deleted while it ran is not lost.
* A run that is `starting` has a cause. It decides which limit counts (`agent.start_timeouts`, else
  `start_timeout`); the message of a run that was ended by it says what it waited for.
* A warning is told at the item, the same one once. A missing Secret or volume is none in a pod's
  first 30 seconds: a run's Secret is made right after its Job.
* What is not understood never ends a run.
"""


def cases() -> list[Any]:
    found = []
    for table in ("states.yaml", "custom_states.yaml", "recorded_states.yaml"):
        read = yaml.safe_load((HERE / table).read_text())
        for group in read["groups"]:
            for case in group["cases"]:
                whole = {"now": read["shapes"]["now"], **recorded(case), **case}
                found.append({"title": group["title"], **whole})
    return found


def recorded(case: dict[str, Any]) -> dict[str, Any]:
    """What a real cluster said, if the case is one of those."""
    if "recorded" not in case:
        return {}
    return dict(json.loads((HERE / "recorded" / case["recorded"]).read_text()))


def as_object(kind: type, body: Any) -> Any:
    return msgspec.json.decode(json.dumps(body), type=kind)


def launched(case: dict[str, Any]) -> Any:
    name = next(name for name in KINDS if name in case)
    return as_object(KINDS[name], case[name])


def pods_of(case: dict[str, Any]) -> list[Pod]:
    return [as_object(Pod, pod) for pod in case.get("pods", ())]


def events_of(case: dict[str, Any]) -> list[Event]:
    return [as_object(Event, event) for event in case.get("events", ())]


def judged(case: dict[str, Any]) -> RunStatus:
    now = unix_time(case["now"])
    assert now is not None
    if case.get("gone"):
        end = judge_gone(launched(case), pods_of(case), now=now)
        return RunStatus(state=RunState.ENDED, end=end)
    return judge(launched(case), pods_of(case), events=events_of(case), now=now)


def wanted(case: dict[str, Any]) -> RunStatus:
    want = dict(case["want"])
    state = RunState(want.pop("state"))
    if state is not RunState.ENDED:
        cause = StartCause(want.pop("cause")) if "cause" in want else None
        held_until = unix_time(want.pop("held_until", None))
        return RunStatus(state=state, cause=cause, held_until=held_until, **want)
    reason = Reason(want.pop("reason")) if "reason" in want else None
    end = RunEnd(exit_code=want.pop("exit_code", None), reason=reason, **want)
    return RunStatus(state=state, end=end)


CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['title']}: {case['case']}")
def test_the_cluster_shows(case: dict[str, Any]):
    assert judged(case) == wanted(case)


def drawing() -> str:
    lines, title = [HEAD], ""
    for case in CASES:
        if case["title"] != title:
            title = case["title"]
            lines.append(f"\n## {title}\n\n")
            lines.append(
                "| the cluster shows | the run is | as | warned | next |\n|---|---|---|---|---|\n"
            )
        status = wanted(case)
        end = status.end
        if end is None:
            why = f"`{status.cause}`" if status.cause else ""
        elif end.signal is not None:
            why = f"signal {end.signal}, `{end.reason}`"
        else:
            code = "no exit code" if end.exit_code is None else f"exit code {end.exit_code}"
            why = f"{code}, `{end.reason}`" if end.reason else code
        warned = "yes" if status.warning else ""
        cells = [case["case"], status.state.value, why, warned, case["next"]]
        lines.append("".join(f"| {cell} " if cell else "| " for cell in cells) + "|\n")
    return "".join(lines)


def test_the_page_is_drawn_from_the_tables():
    assert PAGE.read_text() == drawing(), "redraw it by running this file"


def test_the_tables_show_each_cause_and_each_state():
    statuses = [wanted(case) for case in CASES]
    assert {status.state for status in statuses} == set(RunState)
    assert {status.cause for status in statuses} - {None} == set(StartCause)
    assert set(WAITING.values()) < set(StartCause)


def test_all_that_a_real_cluster_said_is_in_a_table():
    files = {path.name for path in (HERE / "recorded").iterdir()}
    assert files == {case["recorded"] for case in CASES if "recorded" in case}


def test_a_run_that_begins_has_a_cause_and_says_why():
    starting = [one for one in map(judged, CASES) if one.state is RunState.STARTING]
    assert starting
    assert all(one.cause is not None and one.detail for one in starting)


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("created pending", Word.STARTING),
        ("running completing", Word.RUNNING),
        ("succeeded completed", Word.FINISHED),
        ("failed aborted timeout terminated", Word.FAILED),
        ("terminating", Word.STOPPING),
    ],
)
def test_words_of_custom_resources_mean_what_they_mean_for_wandbs_agent(words: str, meaning: Word):
    assert {WORDS[word] for word in words.split()} == {meaning}


COUNTS = st.none() | st.integers(0, 20)
PODS = st.lists(st.sampled_from([pod for case in CASES for pod in pods_of(case)]), max_size=4)
NOW = unix_time("2026-11-22T12:00:00Z") or 0.0


@given(pods=PODS, counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS), limit=st.integers(0, 6))
def test_no_count_and_no_pod_ends_a_job(
    pods: list[Pod], counts: tuple[int | None, ...], limit: int
):
    active, ready, succeeded, failed = counts
    job = Job(
        spec=JobSpec(backoff_limit=limit, completions=1),
        status=JobStatus(active=active, ready=ready, succeeded=succeeded, failed=failed),
    )
    status = judge(job, pods, now=NOW)
    assert status.end is None
    assert status.state is not RunState.ENDED


@given(
    pods=PODS,
    reason=st.sampled_from(
        ["BackoffLimitExceeded", "PodFailurePolicy", "FailedIndexes", "Odd", ""]
    ),
    limit=st.integers(0, 6),
)
def test_a_failed_job_never_ends_well(pods: list[Pod], reason: str, limit: int):
    failed = Condition(type="Failed", status="True", reason=reason)
    job = Job(spec=JobSpec(backoff_limit=limit), status=JobStatus(conditions=(failed,)))
    end = judge(job, pods, now=NOW).end
    assert end is not None
    assert not end.clean


@given(pods=PODS, word=st.text().filter(lambda word: word.lower() not in WORDS))
def test_a_word_that_is_not_understood_ends_nothing(pods: list[Pod], word: str):
    custom = as_object(Custom, {"kind": "Thing", "status": {"phase": word, "state": word}})
    assert judge(custom, pods, now=NOW).end is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['title']}: {case['case']}")
def test_an_object_that_is_gone_has_an_end(case: dict[str, Any]):
    end = judge_gone(launched(case), pods_of(case), now=NOW)
    seen = judged(case).end
    assert end == seen or (seen is None and not end.clean)


def a_running_pod(**condition: str) -> Pod:
    told = [{"type": "DisruptionTarget", "status": "True", **condition}] if condition else []
    running = [{"name": "main", "state": {"running": {}}}]
    return as_object(
        Pod,
        {
            "metadata": {"name": "p", "deletionTimestamp": "2026-11-22T11:59:30Z"},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"phase": "Running", "conditions": told, "containerStatuses": running},
        },
    )


def test_a_pod_that_is_gone_was_preempted_or_deleted():
    deleted = judge_gone(a_running_pod(), [], now=NOW)
    assert (deleted.reason, deleted.detail) == (
        Reason.VANISHED,
        "the pod was deleted by somebody else",
    )
    assert judge_gone(a_running_pod(reason="DeletionByPodGC"), [], now=NOW).reason is (
        Reason.PREEMPTED
    )


def test_a_job_that_is_gone_was_deleted_by_somebody():
    for kind, name in ((Job(), "Job"), (Custom(kind="JobSet"), "JobSet")):
        end = judge_gone(kind, [], now=NOW)
        assert (end.reason, end.detail) == (
            Reason.VANISHED,
            f"the {name} was deleted by somebody else",
        )


@pytest.mark.parametrize("kind", [Job(), Custom(kind="JobSet"), Pod()])
def test_what_went_while_nobody_watched_is_lost(kind: Job | Custom | Pod):
    end = judge_gone(kind, [], now=NOW, unseen=True)
    assert (end.reason, end.lost) == (Reason.VANISHED, True)
    assert "nobody here saw" in end.detail
    assert not judge_gone(kind, [], now=NOW).lost


def test_what_went_while_nobody_watched_after_it_had_ended_or_was_deleted_is_not_lost():
    ended = as_object(Job, {"status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    assert judge_gone(ended, [], now=NOW, unseen=True).clean
    deleted = judge_gone(a_running_pod(), [], now=NOW, unseen=True)
    assert (deleted.lost, deleted.detail) == (False, "the pod was deleted by somebody else")
    taken = judge_gone(a_running_pod(reason="DeletionByPodGC"), [], now=NOW, unseen=True)
    assert (taken.lost, taken.reason) == (False, Reason.PREEMPTED)


def test_the_same_want_of_room_reads_the_same_however_many_nodes_there_are():
    one = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b, c}."
    other = (
        "0/50 nodes are available: 20 node(s) had untolerated taint {a: b, c}, 30 Insufficient cpu."
        " no new claims to deallocate, preemption: 0/50 nodes are available: 50 No victims."
    )
    assert scheduler_words(one) == scheduler_words(other)
    assert scheduler_words(one) == "Insufficient cpu; node(s) had untolerated taint {a: b, c}"
    assert scheduler_words("no nodes available to schedule pods") == (
        "no nodes available to schedule pods"
    )


def test_the_same_refusal_reads_the_same_at_each_try():
    text = (
        'Error creating: pods "j-{}" is forbidden: exceeded quota: q, requested: cpu=1,memory=1,'
        " used: cpu={},memory=7, limited: cpu=8,memory=8"
    )
    assert refusal_words(text.format("a", 7)) == refusal_words(text.format("b", 8))
    assert refusal_words("Internal error occurred: failed calling webhook") == (
        "Internal error occurred: failed calling webhook"
    )


def test_texts_of_any_length_stay_short():
    assert len(scheduler_words("9/9 nodes are available: " + "1 Insufficient x, " * 1000)) <= 400
    assert len(refusal_words("x" * 10_000)) == 400


def an_event(reason: str, message: str, at: str) -> Event:
    return Event(reason=reason, message=message, last_timestamp=at)


def test_events_that_no_state_tells_of_are_warnings_once_each():
    events = [
        an_event("NodeNotReady", "Node is not ready", "2026-11-22T11:00:00Z"),
        an_event("Pulled", "Image is there", "2026-11-22T10:00:00Z"),
        an_event("NotTriggerScaleUp", "max node group size reached", "2026-11-22T10:30:00Z"),
        an_event("NodeNotReady", "Node is not ready", "2026-11-22T11:30:00Z"),
    ]
    assert event_warnings(events) == (
        "the cluster adds no node for it (NotTriggerScaleUp): max node group size reached",
        "its node does not answer (NodeNotReady): Node is not ready",
    )


@pytest.mark.parametrize(
    ("index", "ranges", "is_in"),
    [
        ("3", "1,3-5", True),
        ("5", "1,3-5", True),
        ("1", "1,3-5", True),
        ("2", "1,3-5", False),
        ("", "1", False),
        ("1", "", False),
        ("x", "1-x", False),
    ],
)
def test_indexes_are_read_from_their_ranges(index: str, ranges: str, is_in: bool):
    assert in_indexes(index, ranges) is is_in


if __name__ == "__main__":
    PAGE.write_text(drawing())
