"""Pauses by hand as a small file in the state folder: `paused-queues.json`."""

from collections.abc import Set
from pathlib import Path

import anyio.to_thread
import msgspec

from launch_async.domain.errors import AgentUnfit, LaunchError
from launch_async.domain.ids import QueueRef
from launch_async.kit.files import write_atomically


class PauseFile:
    """Implements `ports.pauses.PauseStore`."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "paused-queues.json"

    def load(self) -> frozenset[QueueRef]:
        """None at all if there is no file."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=frozenset[QueueRef])
        except FileNotFoundError:
            return frozenset()
        except (OSError, msgspec.DecodeError) as error:
            raise AgentUnfit(
                f"{self._path}, which says what queues were paused by hand, cannot be read"
                f" ({_reason(error)}). Delete it to start with none of them paused"
            ) from error

    async def keep(self, queues: Set[QueueRef]) -> None:
        """The file has what was kept before, or this, whatever happens."""
        ordered = sorted(queues, key=str)
        content = msgspec.json.format(msgspec.json.encode(ordered), indent=2)
        try:
            await anyio.to_thread.run_sync(write_atomically, self._path, content)
        except OSError as error:
            raise LaunchError(
                f"this holds until the agent ends, but is not kept: {self._path} cannot be written"
                f" ({_reason(error)}). Mend that, and say it again"
            ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
