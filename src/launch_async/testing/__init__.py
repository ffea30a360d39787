"""Checks that a runner keeps its promises: for whoever writes one, in any package.

```python
from launch_async.testing import RunnerConformance

class TestMyRunner(RunnerConformance):
    @pytest.fixture
    def backend(self):
        return MyBackend()          # a `RunnerBackend`: what only a test may do
```

Needs pytest: `pip install launch-async[testing]`. Nothing else in the package imports this.
"""

import pytest

pytest.register_assert_rewrite("launch_async.testing.runners")

from launch_async.testing.backends import (  # noqa: E402 - the rewriting must be ordered before
    SECRET,
    RunnerBackend,
    end_of,
    order_for,
    printed,
    statuses,
)
from launch_async.testing.plays import Play  # noqa: E402
from launch_async.testing.runners import RunnerConformance  # noqa: E402

__all__ = [
    "SECRET",
    "Play",
    "RunnerBackend",
    "RunnerConformance",
    "end_of",
    "order_for",
    "printed",
    "statuses",
]
