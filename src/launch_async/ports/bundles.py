"""What the agent keeps of items that failed, on its own machine."""

from collections.abc import Mapping
from typing import Protocol

from launch_async.domain.ids import ItemId


class BundleStore(Protocol):
    """A folder of files for each failed item."""

    async def keep(self, item_id: ItemId, files: Mapping[str, bytes]) -> None:
        """Write these files, by their paths below the item's folder; twice is once.

        Raises:
            OSError: they cannot be written.
        """
        ...
