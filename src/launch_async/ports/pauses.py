"""Which queues people have paused, kept over restarts of the agent."""

from collections.abc import Set
from typing import Protocol

from launch_async.domain.ids import QueueRef


class PauseStore(Protocol):
    """Remembers one set of queues."""

    def load(self) -> Set[QueueRef]:
        """What was kept last.

        Raises:
            AgentUnfit: it cannot be read.
        """
        ...

    async def keep(self, queues: Set[QueueRef]) -> None:
        """Remember these and no others.

        Raises:
            LaunchError: they cannot be written.
        """
        ...
