"""Jobs, queues, items and runs over one transport."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec

from launch_async.domain.errors import ConfigError
from launch_async.sdk.artifacts import NewArtifact, log_artifact
from launch_async.wire import sdk_operations as operations
from launch_async.wire.codec import encode_code_job
from launch_async.wire.operations import LAUNCH_PROJECT
from launch_async.wire.requeue_operations import PUSH
from launch_async.wire.transport import Transport

MAX_CODE_BYTES = 64 << 20
IGNORED_FOLDERS = frozenset({".git", "wandb", "__pycache__", ".venv", "node_modules"})
CLEAN_STATES = frozenset({"FINISHED"})
ENDED_STATES = frozenset({"FINISHED", "FAILED", "STOPPED"})


class ItemStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An item as its queue shows it."""

    state: str
    """PENDING, LEASED, CLAIMED, RUNNING, FINISHED, FAILED or STOPPED."""
    run_id: str | None = None
    message: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED_STATES


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A run as W&B tracks it."""

    run_id: str
    name: str
    state: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    steps: int
    """Lines of history that have arrived."""


class LaunchClient:
    """One entity's jobs and queues. Errors: as the transport, with the service's own text."""

    def __init__(self, transport: Transport, *, entity: str) -> None:
        self._transport = transport
        self.entity = entity

    async def create_code_job(
        self, folder: Path, *, project: str, name: str, entrypoint: list[str]
    ) -> str:
        """Upload the folder and make a job of it; the job's reference, with its alias.

        Raises:
            ConfigError: the folder cannot be read, is empty or too large.
        """
        files = await anyio.to_thread.run_sync(read_folder, folder)
        await self._transport.execute(
            operations.UPSERT_PROJECT, {"input": {"entityName": self.entity, "name": project}}
        )
        code = NewArtifact(
            entity=self.entity, project=project, type="code", name=f"code-{name}", files=files
        )
        artifact_id = await log_artifact(self._transport, code)
        runtime = ".".join(platform.python_version_tuple()[:2])
        job = encode_code_job(artifact_id=artifact_id, entrypoint=entrypoint, runtime=runtime)
        job_files = {"wandb-job.json": job}
        if "requirements.txt" in files:
            job_files["requirements.frozen.txt"] = files["requirements.txt"]
        made = NewArtifact(
            entity=self.entity,
            project=project,
            type="job",
            name=name,
            files=job_files,
            metadata={"_partial": True},
        )
        await log_artifact(self._transport, made)
        return f"{self.entity}/{project}/{name}:latest"

    async def upsert_queue(self, name: str, *, resource: str, config: Mapping[str, Any]) -> None:
        """Make the queue or change its resource config."""
        await self._transport.execute(
            operations.UPSERT_PROJECT,
            {"input": {"entityName": self.entity, "name": LAUNCH_PROJECT}},
        )
        await self._transport.execute(
            operations.UPSERT_QUEUE,
            {
                "entityName": self.entity,
                "projectName": LAUNCH_PROJECT,
                "queueName": name,
                "resourceType": resource,
                "resourceConfig": json.dumps({"resource_args": {resource: dict(config)}}),
            },
        )

    async def push(self, queue: str, run_spec: Mapping[str, Any]) -> str:
        """Put an item into the queue; its id. The spec is in W&B's words (contract §6.2)."""
        answer = await self._transport.execute(
            PUSH,
            {
                "entityName": self.entity,
                "projectName": LAUNCH_PROJECT,
                "queueName": queue,
                "runSpec": json.dumps({"entity": self.entity, "resource": None, **run_spec}),
            },
        )
        item_id: str = answer["pushToRunQueueByName"]["runQueueItemId"]
        return item_id

    async def item(self, queue: str, item_id: str) -> ItemStatus | None:
        """The item now; None when it is not there any more."""
        answer = await self._transport.execute(
            operations.ITEM,
            {
                "entityName": self.entity,
                "projectName": LAUNCH_PROJECT,
                "runQueue": queue,
                "itemId": item_id,
            },
        )
        found = ((answer.get("project") or {}).get("runQueue") or {}).get("runQueueItem")
        if not found:
            return None
        return ItemStatus(
            state=found["state"], run_id=found["associatedRunId"], message=found["message"]
        )

    async def run(self, project: str, run_id: str) -> RunStatus | None:
        """The run now; None before the job has called `wandb.init`."""
        answer = await self._transport.execute(
            operations.RUN, {"entity": self.entity, "project": project, "name": run_id}
        )
        found = (answer.get("project") or {}).get("run")
        if not found:
            return None
        config = json.loads(found["config"] or "{}")
        return RunStatus(
            run_id=found["name"],
            name=found["displayName"] or found["name"],
            state=found["state"],
            config={key: part["value"] for key, part in config.items() if key != "_wandb"},
            summary=json.loads(found["summaryMetrics"] or "{}"),
            steps=found["historyLineCount"] or 0,
        )


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file below the folder by its path in it, without symlinks and working folders.

    Raises:
        ConfigError: as `LaunchClient.create_code_job`.
    """
    if not folder.is_dir():
        msg = f"{folder} is not a folder; give the folder that holds the job's code"
        raise ConfigError(msg)
    files: dict[str, bytes] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if IGNORED_FOLDERS.intersection(inside.parts) or path.is_symlink() or not path.is_file():
            continue
        size += path.stat().st_size
        if size > MAX_CODE_BYTES:
            msg = f"{folder} holds more than {MAX_CODE_BYTES >> 20} MiB; keep data out of the code"
            raise ConfigError(msg)
        files[inside.as_posix()] = path.read_bytes()
    if not files:
        msg = f"{folder} holds no files"
        raise ConfigError(msg)
    return files
