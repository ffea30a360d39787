"""What the garbage collector looks at."""

import subprocess
import sys

LOADING = """
import gc
from launch_async.kit.heap import loading

with loading():
    assert not gc.isenabled()
    loaded = [[] for _ in range(10_000)]
assert gc.isenabled()
print(gc.get_freeze_count() >= len(loaded), any(one is loaded for one in gc.get_objects()))
"""


def test_what_was_loaded_is_not_looked_at_and_the_collector_goes_on():
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True False\n", done.stderr
