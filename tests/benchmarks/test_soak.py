"""The soak on a small scale."""

from benchmark_runs import run_benchmark

RUN_SECONDS = 120


def test_a_soak_gives_its_figures():
    words = ["--items", "300", "--live", "200", "--seconds", "1"]
    done = run_benchmark("soak.py", *words, seconds=RUN_SECONDS)
    assert "soak: 300 items in" in done.stdout, done.stdout + done.stderr
    assert "live: 200 items" in done.stdout, done.stdout + done.stderr
