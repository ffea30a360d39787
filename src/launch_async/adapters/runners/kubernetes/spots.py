"""Where an agent's runs are: one kind in one namespace of one cluster is a spot.

The list of all spots ever used is kept in the state folder, so that the next life looks there
again; it is a help, not a record: what is configured is looked at too.
"""

from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async.adapters.runners.kubernetes.kinds import Kind
from launch_async.kit.files import write_atomically

MAX_SPOTS = 1000
"""More namespaces and kinds than any agent has; the oldest are forgotten."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ClusterKey(msgspec.Struct, frozen=True):
    """Names one cluster as resource configs do; both None: the agent's own."""

    config_file: str | None = None
    context: str | None = None


class Spot(msgspec.Struct, frozen=True, kw_only=True):
    """What one list and one watch cover."""

    cluster: ClusterKey = ClusterKey()
    namespace: str
    kind: Kind

    def path(self, name: str | None = None) -> str:
        """Of its objects, or of one of them."""
        return self.kind.path(self.namespace, name)


class Spots:
    """Those that were used, oldest first; written down before their first use."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "spots.json"
        self._known: dict[Spot, None] | None = None
        self._lock = anyio.Lock()

    async def all(self) -> tuple[Spot, ...]:
        """In this life and in earlier ones."""
        async with self._lock:
            return tuple(await self._read())

    async def note(self, spot: Spot) -> None:
        """Remember it before something is made there."""
        async with self._lock:
            known = await self._read()
            if spot in known:
                return
            known[spot] = None
            while len(known) > MAX_SPOTS:
                del known[next(iter(known))]
            await anyio.to_thread.run_sync(self._write, msgspec.json.encode(list(known)))

    async def _read(self) -> dict[Spot, None]:
        if self._known is None:
            self._known = dict.fromkeys(await anyio.to_thread.run_sync(self._load))
        return self._known

    def _load(self) -> list[Spot]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=list[Spot])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("the list of places in clusters is unreadable", why=str(error))
            return []

    def _write(self, content: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._file, content)
