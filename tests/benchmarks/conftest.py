"""The programs in benchmarks/, tried on a small scale, so that they work when they are needed."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
