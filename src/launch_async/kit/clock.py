"""Wall-clock time for people; durations are measured with `anyio.current_time`."""

import time


def unix_now() -> float:
    """Seconds since the epoch."""
    return time.time()
