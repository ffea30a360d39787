"""What the queue service says of items whose runs were found on a backend."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from launch_async.domain.ids import ItemId
from launch_async.domain.run import Origin


class Claim(StrEnum):
    """How an item stands to the run that was found for it."""

    HELD = "held"
    """Claimed under this run id, and not ended."""
    ENDED = "ended"
    OTHERS = "others"
    """It waits in its queue, or is claimed under another run id."""


class Claims(Protocol):
    """Looks up items."""

    async def look_up_items(self, origins: Sequence[Origin]) -> Mapping[ItemId, Claim]:
        """How each item stands; items that the service does not know are absent. Few requests.

        Raises:
            Unavailable: after its own retries.
        """
        ...
