"""Builds that failed: who asked before they did has asked for the same and gets the same answer."""

from pathlib import Path

from launch_async.domain.errors import ItemError
from launch_async.kit.clock import unix_now

_KEPT = 100


class Failures:
    """The latest failure of each environment, the last hundred of them."""

    def __init__(self) -> None:
        self._failed: dict[Path, tuple[float, ItemError]] = {}

    def add(self, folder: Path, error: ItemError) -> None:
        """Note that making this environment failed now."""
        self._failed.pop(folder, None)
        while len(self._failed) >= _KEPT:
            del self._failed[next(iter(self._failed))]
        self._failed[folder] = (unix_now(), error)

    def share(self, folder: Path, *, popped_at: float) -> None:
        """Spare an item that was taken before the failure a build of its own; later ones try anew.

        Raises:
            ItemError: the failure.
        """
        failed_at, error = self._failed.get(folder, (0.0, None))
        if error is not None and popped_at <= failed_at:
            raise ItemError(str(error), reason=error.reason, stage=error.stage) from error
