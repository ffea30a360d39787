"""The chaos run on Kubernetes on a small scale, and what it would say if something went wrong."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pytest
from benchmark_runs import run_benchmark
from kube_chaos_parts import Part, faults_of, parts

NO_CLUSTER = 2
RUN_SECONDS = 420
FINE = Part(number=0, seconds=0, code=0, told=True)
FAILS = Part(number=0, seconds=0, code=3, told=False)
FINISHED = {"state": "FINISHED", "message": None}
FAILED = {"state": "FAILED", "message": "the job exited with code 3"}
STOPPED = {"state": "STOPPED", "message": None}


@pytest.mark.acceptance
def test_no_kill_of_the_agent_loses_or_doubles_a_job(miss: Callable[[str], NoReturn]) -> None:
    words = ["--items", "12", "--kills", "3", "--longest", "3"]
    done = run_benchmark("kube_chaos.py", *words, seconds=RUN_SECONDS)
    if done.returncode == NO_CLUSTER:
        miss(done.stdout.strip())
    said = done.stdout.splitlines()
    assert (done.returncode, said[-1]) == (0, "lost=0 doubled=0 of 12"), done.stdout + done.stderr


def test_a_seed_replays_its_pods() -> None:
    assert parts(7, 200, longest=10) == parts(7, 200, longest=10)
    assert parts(7, 200, longest=10) != parts(8, 200, longest=10)
    assert {part.code for part in parts(7, 200, longest=10)} == {0, 1, 3, 7}


@pytest.mark.parametrize(
    ("part", "item", "jobs", "ends", "fault"),
    [
        (FINE, FINISHED, 1, [0], None),
        (FAILS, FAILED, 1, [3], None),
        (FINE, {"state": "CLAIMED", "message": None}, 0, [], "lost"),
        (FINE, {"state": "CLAIMED", "message": None}, 1, [0], "lost"),
        (FAILS, {"state": "FAILED", "message": "x"}, 0, [], "lost"),
        (FINE, FINISHED, 2, [0], "doubled"),
        (FINE, FINISHED, 1, [0, 0], "doubled"),
        (FINE, FAILED, 1, [0], "wrong"),
        (FAILS, {"state": "FAILED", "message": "exited with code 4"}, 1, [3], "wrong"),
        (FINE, FINISHED, 1, [None], "wrong"),
        (FAILS, {"state": "FAILED", "message": "the agent lost its journal"}, 1, [], None),
    ],
)
def test_what_the_witness_saw_is_held_against_the_queue(
    part: Part, item: dict[str, Any], jobs: int, ends: Sequence[int | None], fault: str | None
) -> None:
    faults = faults_of({"i": part}, items={"i": item}, jobs={"i": jobs}, ends={"i": ends})
    assert fault is None or faults.pop(fault) == [0]
    assert {name for name, numbers in faults.items() if numbers} <= {"wrong"} - {fault}


@pytest.mark.parametrize(
    ("item", "jobs", "sound"),
    [
        (STOPPED, 0, True),
        ({"state": "CLAIMED", "message": None}, 0, True),
        (STOPPED, 1, False),
        (FINISHED, 0, False),
    ],
)
def test_what_was_pushed_again_was_never_launched_before(
    item: dict[str, Any], jobs: int, sound: bool
) -> None:
    faults = faults_of(
        {"i": FINE}, items={"i": item}, jobs={"i": jobs}, ends={"i": []}, again=["i"]
    )
    assert any(faults.values()) is not sound


@pytest.mark.parametrize(
    ("journal", "told", "sound"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_only_without_a_journal_an_item_may_have_followed_its_run_without_a_word(
    journal: bool, told: bool, sound: bool
) -> None:
    part = Part(number=0, seconds=0, code=3, told=told)
    item = {"state": "FAILED", "message": None}
    faults = faults_of(
        {"i": part}, items={"i": item}, jobs={"i": 1}, ends={"i": [3]}, journal=journal
    )
    assert any(faults.values()) is not sound
