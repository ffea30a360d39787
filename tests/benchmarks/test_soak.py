"""The soak on a small scale."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "soak.py"
RUN_SECONDS = 120


def test_a_soak_gives_its_figures():
    words = ["--items", "300", "--live", "200", "--seconds", "1"]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert "soak: 300 items in" in done.stdout, done.stdout + done.stderr
    assert "live: 200 items" in done.stdout, done.stdout + done.stderr
