"""Code on this machine, fetched once for all items that run it, kept while there is room.

```
state_dir/sources/<key>/code        what items see; the key names the source, so it never changes
state_dir/sources/<key>/whole.json  how much that is; its time is that of the last use
state_dir/sources/.new-<life>-<key> what is being fetched; renamed when it is whole
state_dir/sources/.old-<life>-<key> what is being removed
```
What an item uses is never removed: uses are counted, and the count and the removal's rename hold
one lock. Of another life of the agent only whole folders are left.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Set
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async.adapters.sources.cache_folder import CacheFolder
from launch_async.adapters.sources.disk import room_in
from launch_async.domain.git import is_commit, is_short_commit
from launch_async.domain.ids import RunId
from launch_async.domain.job import ArtifactSource, GitSource
from launch_async.kit.flights import Flights
from launch_async.kit.keep import Keep
from launch_async.ports.jobs import Code, JobStore
from launch_async.ports.retention import Pruned

KEEP = Keep(max_age_seconds=14 * 86400, max_bytes=5 * 10**9)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class CodeCache:
    """Implements `ports.jobs.CodeStore` over a `JobStore`; one for each state folder."""

    def __init__(self, state_dir: Path, jobs: JobStore, *, keep: Keep = KEEP) -> None:
        self._jobs = jobs
        self._folder = CacheFolder(state_dir.absolute() / "sources", keep)
        self._salt = secrets.token_hex(16)
        self._flights = Flights[Path]("code fetches")
        self._uses = Counter[str]()
        self._counting = anyio.Lock()
        self._pruning = anyio.Lock()
        self._grown = anyio.Event()

    async def serve(self) -> None:
        """Own the fetches and keep to the limits, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._flights.run, name="code fetches")
            await anyio.to_thread.run_sync(self._folder.clear_leftovers)
            while True:
                await self._grown.wait()
                self._grown = anyio.Event()
                await self._prune_quietly()

    @asynccontextmanager
    async def code(self, source: ArtifactSource | GitSource) -> AsyncGenerator[Code, None]:
        """The source's code, fetched once however many ask; it stays while the block runs.

        Raises:
            ItemError, Unavailable: as `JobStore.fetch`; the disk is full.
        """
        key = self._key(source)
        async with self._counting:
            self._uses[key] += 1
        try:
            folder = await self._flights.get(key, partial(self._have, key, source))
            yield Code(folder=folder, key=key)
        finally:
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key]

    async def prune(self, open_runs: Set[RunId]) -> Pruned:
        """Remove code that is beyond the limits and that nobody uses."""
        del open_runs  # theirs is counted, or they have it already
        removed = freed = 0
        async with self._pruning:
            for one in await anyio.to_thread.run_sync(self._folder.candidates):
                aside = await self._set_aside(one.path.name)
                if aside is not None:
                    await anyio.to_thread.run_sync(self._folder.delete, aside)
                    removed, freed = removed + 1, freed + one.size
        return Pruned(removed, freed)

    async def _set_aside(self, key: str) -> Path | None:
        async with self._counting:
            if self._uses[key]:
                return None
            return await anyio.to_thread.run_sync(self._folder.set_aside, key)

    async def _have(self, key: str, source: ArtifactSource | GitSource) -> Path:
        found = await anyio.to_thread.run_sync(self._folder.find, key)
        return found or await self._fetch(key, source)

    async def _fetch(self, key: str, source: ArtifactSource | GitSource) -> Path:
        with room_in(self._folder.root):
            into = await anyio.to_thread.run_sync(self._folder.begin, key)
            try:
                await self._jobs.fetch(source, into)
                folder = await anyio.to_thread.run_sync(self._folder.finish, key)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._folder.give_up, key)
        self._grown.set()
        return folder

    async def _prune_quietly(self) -> None:
        try:
            pruned = await self.prune(frozenset())
        except OSError as error:
            log.warning("cannot be cut back", what="sources", reason=str(error))
        else:
            if pruned.removed:
                log.info("cut back", what="sources", removed=pruned.removed)

    def _key(self, source: ArtifactSource | GitSource) -> str:
        """Equal for equal content only: a branch names no content, and is refused.

        What was fetched with a login of the job's own is for jobs with the same login, and in this
        life of the agent: no trace of the login stays.
        """
        facts = msgspec.structs.asdict(source)
        if isinstance(source, GitSource):
            if not (is_commit(source.commit) or is_short_commit(source.commit)):
                msg = f"the commit of {source.remote} is not pinned"
                raise ValueError(msg)
            login = facts.pop("login")
            if login is not None:
                facts["login"] = f"{self._salt} {login.reveal()}"
        facts["kind"] = type(source).__name__
        content = msgspec.json.encode(facts, order="sorted")
        return hashlib.sha256(content).hexdigest()[:40]
