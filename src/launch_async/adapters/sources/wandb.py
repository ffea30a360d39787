"""Jobs and code kept in W&B artifacts, streamed to disk and checked against their digests."""

import base64
import errno
import hashlib
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from launch_async.domain.errors import ItemError, Reason, gravest
from launch_async.domain.job import ArtifactSource, GitSource, Job
from launch_async.wire import operations
from launch_async.wire.codec import MalformedError, decode_job
from launch_async.wire.transport import RequestRefused, Transport, artifact_file_url

JOB_FILE = "wandb-job.json"
MAX_FILE_BYTES = 64 << 30
MAX_MANIFEST_BYTES = 64 << 20
DOWNLOADS_AT_ONCE = 8
REGION = "default"

_MISSING_STATES = frozenset({"DELETED", "PENDING"})
_BAD_NAMES = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


class _Entry(msgspec.Struct, frozen=True):
    """One file in an artifact's manifest."""

    digest: str
    """Base64 of the content's MD5; for references whatever the store calls it."""
    size: int | None = None
    """In bytes; references may come without."""
    ref: str | None = None
    birth: str | None = msgspec.field(default=None, name="birthArtifactID")


class _Manifest(msgspec.Struct, frozen=True):
    contents: dict[str, _Entry]


class _Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to read an artifact's files."""

    id: str
    entity: str
    project: str
    collection: str
    type: str
    manifest_url: str
    label: str
    """How errors name it."""


class WandbJobStore:
    """The `JobStore` port over W&B's artifacts."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._downloads = anyio.CapacityLimiter(DOWNLOADS_AT_ONCE)

    async def job(self, ref: str) -> Job:
        """The job that `entity/project/name:alias` names."""
        artifact = await self._by_name(ref)
        if artifact.type != "job":
            msg = f"{ref} is an artifact of type {artifact.type!r}, not a job"
            raise ItemError(msg, reason=Reason.JOB_INVALID)
        with tempfile.TemporaryDirectory(prefix="launch-job-") as folder:
            manifest = await self._manifest(artifact, Path(folder))
            entry = manifest.contents.get(JOB_FILE)
            if entry is None:
                msg = f"the job {ref} holds no {JOB_FILE}; create it again with `wandb job create`"
                raise ItemError(msg, reason=Reason.JOB_INVALID)
            path = Path(folder) / JOB_FILE
            await self._file(artifact, JOB_FILE, entry, path)
            content = await anyio.Path(path).read_bytes()
        try:
            return decode_job(content, ref=ref, artifact_id=artifact.id)
        except MalformedError as error:
            raise ItemError(str(error), reason=Reason.JOB_INVALID) from error

    async def fetch(self, source: ArtifactSource | GitSource, into: Path) -> None:
        """Put the code into the empty folder `into`."""
        if isinstance(source, GitSource):
            msg = (
                "this version runs code kept in artifacts, not git jobs: create the job with "
                "`wandb job create code`"
            )
            raise ItemError(msg, reason=Reason.TARGET_UNSUPPORTED)
        artifact = await self._by_id(source.artifact_id)
        with tempfile.TemporaryDirectory(prefix="launch-code-") as folder:
            manifest = await self._manifest(artifact, Path(folder))
        targets = {name: _inside(into, name, artifact) for name in manifest.contents}
        try:
            async with anyio.create_task_group() as group:
                for name, target in targets.items():
                    entry = manifest.contents[name]
                    group.start_soon(self._bounded_file, artifact, name, entry, target, name=name)
        except ExceptionGroup as errors:
            raise gravest(errors) from errors

    async def _bounded_file(
        self, artifact: _Artifact, name: str, entry: _Entry, target: Path
    ) -> None:
        async with self._downloads:
            try:
                await anyio.Path(target.parent).mkdir(parents=True, exist_ok=True)
                await self._file(artifact, name, entry, target)
            except OSError as error:
                if error.errno not in _BAD_NAMES:
                    raise
                msg = f"{artifact.label} holds the file {name!r}, which has no place on this disk"
                raise ItemError(msg, reason=Reason.JOB_INVALID) from error

    async def _file(self, artifact: _Artifact, name: str, entry: _Entry, into: Path) -> None:
        if entry.ref is not None:
            msg = f"{name} in {artifact.label} is a reference to {entry.ref}; add the file itself"
            raise ItemError(msg, reason=Reason.JOB_INVALID)
        digest = _hex(entry.digest)
        url = artifact_file_url(
            self._transport.base_url,
            REGION,
            artifact.entity,
            artifact.project,
            artifact.collection,
            artifact.id,
            entry.birth or artifact.id,
            digest,
            PurePosixPath(name).name,
        )
        try:
            await self._transport.download(url, into, max_bytes=entry.size or MAX_FILE_BYTES)
        except RequestRefused as error:
            msg = f"{name} of {artifact.label} cannot be downloaded: {error}"
            raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE) from error
        if await anyio.to_thread.run_sync(_md5, into) != digest:
            msg = f"{name} of {artifact.label} does not match its digest; upload the job again"
            raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE)

    async def _manifest(self, artifact: _Artifact, folder: Path) -> _Manifest:
        path = folder / "manifest.json"
        try:
            await self._transport.download(
                artifact.manifest_url, path, max_bytes=MAX_MANIFEST_BYTES
            )
            return msgspec.json.decode(await anyio.Path(path).read_bytes(), type=_Manifest)
        except (RequestRefused, msgspec.DecodeError, RecursionError) as error:
            msg = f"the manifest of {artifact.label} cannot be read: {error}"
            raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE) from error

    async def _by_name(self, ref: str) -> _Artifact:
        parts = ref.split("/")
        if len(parts) != 3 or not all(parts):
            msg = f"{ref!r} does not name a job; it must look like entity/project/name:alias"
            raise ItemError(msg, reason=Reason.JOB_NOT_FOUND)
        entity, project, name = parts
        answer = await self._ask(
            operations.ARTIFACT_BY_NAME,
            {"entity": entity, "project": project, "name": name},
            f"the job {ref}",
        )
        membership = (answer.get("project") or {}).get("artifactCollectionMembership") or {}
        found = membership.get("artifact")
        if not found or found["state"] in _MISSING_STATES:
            msg = f"the job {ref} does not exist; see `wandb job list -e {entity} -p {project}`"
            raise ItemError(msg, reason=Reason.JOB_NOT_FOUND)
        label = f"the job {ref}"
        with _understood(label):
            return _Artifact(
                id=found["id"],
                entity=entity,
                project=project,
                collection=name.split(":")[0],
                type=found["artifactType"]["name"],
                manifest_url=found["currentManifest"]["file"]["directUrl"],
                label=label,
            )

    async def _by_id(self, artifact_id: str) -> _Artifact:
        label = "the job's code"
        answer = await self._ask(operations.ARTIFACT_BY_ID, {"id": artifact_id}, label)
        found = answer.get("artifact")
        if not found or found["state"] in _MISSING_STATES:
            msg = f"{label} (artifact {artifact_id}) does not exist any more; create the job again"
            raise ItemError(msg, reason=Reason.JOB_NOT_FOUND)
        with _understood(label):
            sequence = found["artifactSequence"]
            return _Artifact(
                id=found["id"],
                entity=sequence["project"]["entity"]["name"],
                project=sequence["project"]["name"],
                collection=sequence["name"],
                type=found["artifactType"]["name"],
                manifest_url=found["currentManifest"]["file"]["directUrl"],
                label=f"{label} {sequence['name']}",
            )

    async def _ask(self, document: str, variables: dict[str, Any], label: str) -> dict[str, Any]:
        try:
            return await self._transport.execute(document, variables)
        except RequestRefused as error:
            msg = f"{label} cannot be read: {error}"
            raise ItemError(msg, reason=Reason.JOB_NOT_FOUND) from error


@contextmanager
def _understood(label: str) -> Generator[None, None, None]:
    """A part that is missing means that the artifact is not whole."""
    try:
        yield
    except (KeyError, TypeError) as error:
        msg = f"{label} has no manifest or no collection; upload it again"
        raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE) from error


def _inside(folder: Path, name: str, artifact: _Artifact) -> Path:
    """Where the file goes; a name that leads out of the folder is refused."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        msg = f"{artifact.label} holds the file name {name!r}, which leads out of its folder"
        raise ItemError(msg, reason=Reason.JOB_INVALID)
    return folder.joinpath(*path.parts)


def _hex(digest: str) -> str:
    try:
        return base64.b64decode(digest, validate=True).hex()
    except ValueError as error:
        msg = "the manifest holds a digest that is not base64"
        raise ItemError(msg, reason=Reason.JOB_INVALID) from error


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
