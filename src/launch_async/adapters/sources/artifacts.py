"""W&B artifacts: their files, streamed to disk and checked against their digests."""

import base64
import errno
import hashlib
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from launch_async.adapters.sources.disk import check_room
from launch_async.domain.errors import ItemError, Reason, gravest
from launch_async.wire import operations
from launch_async.wire.transport import RequestRefused, Transport, artifact_file_url

MAX_FILE_BYTES = 64 << 30
MAX_MANIFEST_BYTES = 64 << 20
DOWNLOADS_AT_ONCE = 8
REGION = "default"

_MISSING_STATES = frozenset({"DELETED", "PENDING"})
_BAD_NAMES = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


class Entry(msgspec.Struct, frozen=True):
    """One file in an artifact's manifest."""

    digest: str
    """Base64 of the content's MD5; for references whatever the store calls it."""
    size: int | None = None
    """In bytes; references may come without."""
    ref: str | None = None
    birth: str | None = msgspec.field(default=None, name="birthArtifactID")


class _Manifest(msgspec.Struct, frozen=True):
    contents: dict[str, Entry]


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to read an artifact's files."""

    id: str
    entity: str
    project: str
    collection: str
    type: str
    manifest_url: str
    label: str
    """How errors name it."""


class Artifacts:
    """Reads artifacts. Errors: `ItemError` when one is missing or broken, `Unavailable`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._downloads = anyio.CapacityLimiter(DOWNLOADS_AT_ONCE)

    async def by_name(self, ref: str) -> Artifact:
        """The artifact that a job's name, `entity/project/name:alias`, stands for."""
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
            return Artifact(
                id=found["id"],
                entity=entity,
                project=project,
                collection=name.split(":")[0],
                type=found["artifactType"]["name"],
                manifest_url=found["currentManifest"]["file"]["directUrl"],
                label=label,
            )

    async def by_id(self, artifact_id: str, label: str) -> Artifact:
        """The artifact with this id; `label` is how errors name it."""
        answer = await self._ask(operations.ARTIFACT_BY_ID, {"id": artifact_id}, label)
        found = answer.get("artifact")
        if not found or found["state"] in _MISSING_STATES:
            msg = f"{label} (artifact {artifact_id}) does not exist any more; create the job again"
            raise ItemError(msg, reason=Reason.JOB_NOT_FOUND)
        with _understood(label):
            sequence = found["artifactSequence"]
            return Artifact(
                id=found["id"],
                entity=sequence["project"]["entity"]["name"],
                project=sequence["project"]["name"],
                collection=sequence["name"],
                type=found["artifactType"]["name"],
                manifest_url=found["currentManifest"]["file"]["directUrl"],
                label=f"{label} {sequence['name']}",
            )

    async def contents(self, artifact: Artifact) -> dict[str, Entry]:
        """The artifact's files by their paths in it."""
        with tempfile.TemporaryDirectory(prefix="launch-manifest-") as folder:
            path = Path(folder, "manifest.json")
            try:
                await self._transport.download(
                    artifact.manifest_url, path, max_bytes=MAX_MANIFEST_BYTES
                )
                content = await anyio.Path(path).read_bytes()
                return msgspec.json.decode(content, type=_Manifest).contents
            except (RequestRefused, msgspec.DecodeError, RecursionError) as error:
                msg = f"the manifest of {artifact.label} cannot be read: {error}"
                raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE) from error

    async def fetch(self, artifact: Artifact, into: Path) -> None:
        """Put all files into the empty folder `into`, a few at once."""
        contents = await self.contents(artifact)
        targets = {name: _inside(into, name, artifact) for name in contents}
        check_room(into, sum(entry.size or 0 for entry in contents.values()))
        waiting = iter(targets.items())
        try:
            async with anyio.create_task_group() as group:
                for number in range(min(DOWNLOADS_AT_ONCE, len(targets))):
                    group.start_soon(
                        self._download, artifact, contents, waiting, name=f"download {number}"
                    )
        except ExceptionGroup as errors:
            raise gravest(errors) from errors

    async def file(self, artifact: Artifact, name: str, entry: Entry, into: Path) -> None:
        """Stream one file into the file `into`, and check it."""
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
        async with self._downloads:
            try:
                await self._transport.download(url, into, max_bytes=entry.size or MAX_FILE_BYTES)
            except RequestRefused as error:
                msg = f"{name} of {artifact.label} cannot be downloaded: {error}"
                raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE) from error
            if await anyio.to_thread.run_sync(_md5, into) != digest:
                msg = f"{name} of {artifact.label} does not match its digest; upload the job again"
                raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE)

    async def _download(
        self, artifact: Artifact, contents: dict[str, Entry], waiting: Iterator[tuple[str, Path]]
    ) -> None:
        for name, target in waiting:
            try:
                await anyio.Path(target.parent).mkdir(parents=True, exist_ok=True)
                await self.file(artifact, name, contents[name], target)
            except OSError as error:
                if error.errno not in _BAD_NAMES:
                    raise
                msg = f"{artifact.label} holds the file {name!r}, which has no place on this disk"
                raise ItemError(msg, reason=Reason.JOB_INVALID) from error

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


def _inside(folder: Path, name: str, artifact: Artifact) -> Path:
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
