"""The agent as the service sees it: registration, heartbeat, and files of its hidden run."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from launch_async.domain.ids import QueueRef


class AgentStatus(StrEnum):
    """What an agent says of itself (W&B's words)."""

    POLLING = "POLLING"
    RUNNING = "RUNNING"
    KILLED = "KILLED"


class Presence(Protocol):
    """Errors of every verb: `Unavailable` after its own retries, `AgentUnfit` when refused."""

    async def register(self) -> str:
        """Register this agent and open its hidden run; the name that the service gave it.

        Raises:
            AgentUnfit: the key was refused or a queue does not exist.
        """
        ...

    async def follow(self, queues: Sequence[QueueRef]) -> str:
        """Serve these queues from now on, and as `register` otherwise.

        Raises:
            AgentUnfit: a queue does not exist; the agent goes on as it was.
        """
        ...

    async def beat(self, status: AgentStatus) -> bool:
        """Tell the status; True when the service asks this agent to stop polling."""
        ...

    async def upload(self, path: str, content: bytes) -> None:
        """Put a file into the agent's hidden run."""
        ...
