"""Looks for the runs of items that have ended; whoever asks at the same time shares requests."""

from collections import Counter
from collections.abc import Mapping

from launch_async.domain.ids import RunRef
from launch_async.kit.shared import Shared
from launch_async.ports.runs import RunDirectory, RunView


class RunLooks:
    """A thousand runs that a backend lost at once are ten requests, as in a heartbeat."""

    def __init__(self) -> None:
        self._wanted: Counter[RunRef] = Counter()
        self._looks: Shared[Mapping[RunRef, RunView]] = Shared()

    async def look_up(self, run: RunRef, runs: RunDirectory) -> RunView | None:
        """As `RunDirectory.look_up` for one run; None: it does not exist.

        Raises:
            Unavailable: after the adapter's own retries.
        """
        self._wanted[run] += 1
        try:
            found = await self._looks.get(lambda: runs.look_up(list(self._wanted)))
        finally:
            self._wanted[run] -= 1
            if not self._wanted[run]:
                del self._wanted[run]
        return found.get(run)
