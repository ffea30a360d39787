"""Jobs as W&B keeps them, and their code from wherever it is.

```
job file -> Job, its commit pinned
fetch    -> code of an artifact or of a git commit (+ the job's diff.patch)
            + the job's requirements.frozen.txt, if the code has none + the notebook's script
```
"""

import tempfile
from pathlib import Path
from typing import assert_never

import anyio
import anyio.to_thread
import msgspec

from launch_async.adapters.sources.artifacts import Artifact, Artifacts, Entry
from launch_async.adapters.sources.disk import room_in, room_left_in
from launch_async.adapters.sources.git import GitCode
from launch_async.adapters.sources.notebooks import convert
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.job import ArtifactSource, GitSource, Job
from launch_async.wire.codec import MalformedError, decode_job
from launch_async.wire.transport import Transport

JOB_FILE = "wandb-job.json"
PATCH = "diff.patch"
FROZEN = "requirements.frozen.txt"
MAX_EXTRA_BYTES = 64 << 20
"""What a job's patch or list of packages may have at most."""


class WandbJobStore:
    """The `JobStore` port over W&B's artifacts."""

    def __init__(self, transport: Transport, git: GitCode | None = None) -> None:
        self._artifacts = Artifacts(transport)
        self._git = git or GitCode()

    async def job(self, ref: str) -> Job:
        """The job that `entity/project/name:alias` names; its code is of a certain commit."""
        with room_in(Path(tempfile.gettempdir())):
            job = await self._job(ref)
        if isinstance(job.source, GitSource):
            pinned = await self._git.pin(job.source)
            return msgspec.structs.replace(job, source=pinned)
        return job

    async def fetch(self, source: ArtifactSource | GitSource, into: Path) -> None:
        """Put the code into the empty folder `into`."""
        async with room_left_in(into):
            with tempfile.TemporaryDirectory(prefix="launch-code-") as folder:
                await self._fetch(source, into, aside=Path(folder))

    async def _fetch(self, source: ArtifactSource | GitSource, into: Path, *, aside: Path) -> None:
        extras = await self._extras(source, aside)
        match source:
            case ArtifactSource(artifact_id=artifact_id):
                artifact = await self._artifacts.by_id(artifact_id, "the job's code")
                await self._artifacts.fetch(artifact, into)
            case GitSource():
                await self._git.fetch(source, into, patch=extras.get(PATCH))
            case _ as never:
                assert_never(never)
        if FROZEN in extras:
            await anyio.to_thread.run_sync(_add, extras[FROZEN], into / FROZEN)
        if source.notebook is not None:
            await anyio.to_thread.run_sync(convert, into, source.notebook)

    async def _job(self, ref: str) -> Job:
        artifact = await self._artifacts.by_name(ref)
        if artifact.type != "job":
            msg = f"{ref} is an artifact of type {artifact.type!r}, not a job"
            raise ItemError(msg, reason=Reason.JOB_INVALID)
        contents = await self._artifacts.contents(artifact)
        entry = contents.get(JOB_FILE)
        if entry is None:
            msg = f"the job {ref} holds no {JOB_FILE}; create it again with `wandb job create`"
            raise ItemError(msg, reason=Reason.JOB_INVALID)
        with tempfile.TemporaryDirectory(prefix="launch-job-") as folder:
            path = Path(folder, JOB_FILE)
            await self._artifacts.file(artifact, JOB_FILE, entry, path)
            content = await anyio.Path(path).read_bytes()
        try:
            return decode_job(content, ref=ref, artifact_id=artifact.id)
        except MalformedError as error:
            raise ItemError(str(error), reason=Reason.JOB_INVALID) from error

    async def _extras(self, source: ArtifactSource | GitSource, folder: Path) -> dict[str, Path]:
        """What the job's own artifact holds for its code."""
        if source.job_artifact_id is None:
            return {}
        job = await self._artifacts.by_id(source.job_artifact_id, "the job")
        contents = await self._artifacts.contents(job)
        wanted = (PATCH, FROZEN) if isinstance(source, GitSource) else (FROZEN,)
        extras = {name: folder / name for name in wanted if name in contents}
        for name, path in extras.items():
            await self._extra(job, name, contents[name], path)
        return extras

    async def _extra(self, job: Artifact, name: str, entry: Entry, path: Path) -> None:
        if (entry.size or 0) > MAX_EXTRA_BYTES:
            msg = (
                f"{name} of {job.label} has more than {MAX_EXTRA_BYTES >> 20} MiB; make it smaller"
            )
            raise ItemError(msg, reason=Reason.JOB_INVALID)
        await self._artifacts.file(job, name, entry, path)


def _add(path: Path, target: Path) -> None:
    """A list that the code brings itself stays."""
    if not target.exists() and not target.is_symlink():
        target.write_bytes(path.read_bytes())
