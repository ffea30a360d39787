"""Runs of the programs in benchmarks/."""

import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(__file__).parents[2] / "benchmarks"


def run_benchmark(name: str, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """What the program said, and how it ended; at most for so long."""
    return subprocess.run(
        [sys.executable, str(PROGRAMS / name), *words],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
