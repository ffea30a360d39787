"""Jobs and their code."""

from pathlib import Path
from typing import Protocol

from launch_async.domain.job import ArtifactSource, GitSource, Job


class JobStore(Protocol):
    """Reads jobs. Errors: `ItemError` when the job is missing or broken, `Unavailable`."""

    async def job(self, ref: str) -> Job:
        """The job that `entity/project/name:alias` names."""
        ...

    async def fetch(self, source: ArtifactSource | GitSource, into: Path) -> None:
        """Put the job's code into the empty folder `into`; never a path outside of it."""
        ...
