"""What grows with time and must be cut back."""

from collections.abc import Set
from typing import Protocol, runtime_checkable

import msgspec

from launch_async.domain.ids import RunId


class Pruned(msgspec.Struct, frozen=True):
    """What one cut removed."""

    removed: int = 0
    freed_bytes: int = 0


@runtime_checkable
class Prunable(Protocol):
    """Has limits of age and size of its own, built in by compose."""

    async def prune(self, open_runs: Set[RunId]) -> Pruned:
        """Remove what is beyond the limits; nothing that one of these runs needs.

        Raises:
            OSError: it cannot be read or removed.
        """
        ...
