"""The bulkheads of clusters on a small scale: that nothing is lost; how fast is not for a test."""

from collections.abc import Callable
from typing import NoReturn

import pytest
from benchmark_runs import run_benchmark

NO_CLUSTER = 2
RUN_SECONDS = 240


@pytest.mark.acceptance
def test_a_sick_cluster_loses_nothing_of_its_own_nor_of_others(
    miss: Callable[[str], NoReturn],
) -> None:
    words = ["--rounds", "1", "--seconds", "1", "--sick", "12", "--calls", "30"]
    words += ["--kinds", "answers 503"]
    done = run_benchmark("kube_bulkheads.py", *words, seconds=RUN_SECONDS)
    if done.returncode == NO_CLUSTER:
        miss(done.stdout.strip())
    last = done.stdout.splitlines()[-1] if done.stdout else ""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost=0 doubled=0 of" in last, done.stdout + done.stderr
