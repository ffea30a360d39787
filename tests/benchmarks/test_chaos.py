"""The chaos run on a small scale, and what it would say if something went wrong."""

from typing import Any

import pytest
from benchmark_runs import run_benchmark
from chaos import faults_of
from chaos_jobs import Job, jobs
from chaos_lives import plan

RUN_SECONDS = 420
FINE = Job(number=0, contained=False, told=True, seconds=0, code=0)
FINISHED = {"state": "FINISHED", "message": None}


@pytest.mark.acceptance
@pytest.mark.docker
def test_no_kill_loses_or_doubles_an_item(tiny_image: str):
    words = ["--items", "24", "--kills", "5", "--server-kills", "1"]
    done = run_benchmark("chaos.py", *words, seconds=RUN_SECONDS)
    said = done.stdout.splitlines()
    assert (done.returncode, said[-1]) == (0, "lost=0 doubled=0 of 24"), done.stdout + done.stderr


def test_a_seed_replays_its_moments_and_its_jobs():
    moments = plan(7, items=300, kills=50, server_kills=10)
    assert moments == plan(7, items=300, kills=50, server_kills=10)
    assert moments != plan(8, items=300, kills=50, server_kills=10)
    assert [sum(kill.whom == who for kill in moments) for who in ("agent", "server")] == [50, 10]
    assert jobs(7, 300) == jobs(7, 300)
    assert {job.contained for job in jobs(7, 300)} == {True, False}


@pytest.mark.parametrize(
    ("item", "begun", "ends", "fault"),
    [
        (FINISHED, 1, [0], None),
        (None, 1, [0], "lost"),
        ({"state": "LEASED", "message": None}, 0, [], "lost"),
        ({"state": "FAILED", "message": "x"}, 0, [], "lost"),
        (FINISHED, 2, [0], "doubled"),
        (FINISHED, 1, [0, 0], "doubled"),
        ({"state": "FAILED", "message": "exited with code 3"}, 1, [0], "wrong"),
        (FINISHED, 1, [3], "wrong"),
        ({"state": "FAILED", "message": "exited with code 4"}, 1, [3], "wrong"),
    ],
)
def test_what_the_witnesses_saw_is_held_against_the_queue(
    item: dict[str, Any] | None, begun: int, ends: list[int], fault: str | None
):
    items = {} if item is None else {"i": item}
    faults = faults_of({"i": FINE}, items=items, begun={0: begun}, ends={0: ends})
    assert {name for name, numbers in faults.items() if numbers} == ({fault} if fault else set())
