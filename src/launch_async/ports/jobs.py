"""Jobs and their code."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from launch_async.domain.job import ArtifactSource, GitSource, Job


class JobStore(Protocol):
    """Reads jobs. Errors: `ItemError` when the job is missing or broken, `Unavailable`."""

    async def job(self, ref: str) -> Job:
        """The job that `entity/project/name:alias` names."""
        ...

    async def fetch(self, source: ArtifactSource | GitSource, into: Path) -> None:
        """Put the job's code into the empty folder `into`; never a path outside of it."""
        ...


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A job's code on this machine; nobody writes to it."""

    folder: Path
    key: str
    """Names the source: the same key is the same content, for ever."""


class CodeStore(Protocol):
    """Keeps code that many items run. Errors: as `JobStore.fetch`."""

    def code(self, source: ArtifactSource | GitSource) -> AbstractAsyncContextManager[Code]:
        """The source's code, fetched once however many ask; it stays while the block runs."""
        ...
