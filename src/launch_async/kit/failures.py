"""Work that failed: who asked before it did has asked for the same and gets the same answer."""

from collections.abc import Hashable

from launch_async.kit.clock import unix_now

_KEPT = 100


class Failures:
    """The latest failure of each piece of work, the last hundred of them."""

    def __init__(self) -> None:
        self._failed: dict[Hashable, tuple[float, Exception]] = {}

    def add(self, key: Hashable, error: Exception) -> None:
        """Note that this failed now."""
        self._failed.pop(key, None)
        while len(self._failed) >= _KEPT:
            del self._failed[next(iter(self._failed))]
        self._failed[key] = (unix_now(), error)

    def since(self, key: Hashable, *, asked_at: float) -> Exception | None:
        """The failure that came after this Unix time; None: whoever asked then may try."""
        failed_at, error = self._failed.get(key, (0.0, None))
        if error is None or asked_at > failed_at:
            return None
        return error.with_traceback(None)  # or it would grow with each raise
