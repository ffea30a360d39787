"""The queues' own resource configs, to tell what of an item its queue's admin wrote."""

from typing import Protocol

from launch_async.domain.ids import QueueRef
from launch_async.domain.policy import QueueDefaults


class QueueConfigs(Protocol):
    """Reads them; what was read is kept for a short time."""

    async def defaults_of(self, queue: QueueRef, *, fresh: bool = False) -> QueueDefaults | None:
        """The queue's config; None when the service does not show it. `fresh`: read it now.

        Raises:
            Unavailable: nobody knows now; later may help.
        """
        ...
