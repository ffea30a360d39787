"""The backends that the conformance suite runs on, behind one small interface."""

import json
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import aiodocker
import anyio

from launch_async.adapters.runners.docker.runner import DockerRunner
from launch_async.adapters.runners.process.runner import ProcessRunner
from launch_async.domain.ids import ItemId, QueueRef, RunId, RunRef
from launch_async.domain.run import Origin, RunEnd, RunHandle, RunStatus
from launch_async.domain.secret import Secret
from launch_async.ports.runner import CodeWork, ImageWork, LaunchOrder, Runner, Work

SECRET = "local-5ecre7-va1ue"


class Backend(Protocol):
    """One kind of runner, and what only a test may do to it."""

    identity: str

    def life(self) -> Any:
        """A fresh runner, as in a new life of the agent, with its background work going."""

    def work(self, script: str) -> Work: ...

    def kill_from_outside(self, handle: RunHandle) -> None: ...


class ProcessBackend:
    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.identity = f"test-{uuid4().hex[:8]}"
        self.code = state_dir / "code"
        self.code.mkdir(parents=True)

    @asynccontextmanager
    async def life(self) -> AsyncGenerator[Runner, None]:
        runner = ProcessRunner(self.state_dir)
        try:
            yield runner
        finally:
            await runner.close()

    def work(self, script: str) -> Work:
        return CodeWork(
            directory=self.code,
            bin_directory=self.state_dir / "env" / "bin",
            entrypoint=("sh", "-c", script),
        )

    def kill_from_outside(self, handle: RunHandle) -> None:
        os.kill(handle.data["pid"], signal.SIGKILL)


class DockerBackend:
    def __init__(self, image: str) -> None:
        self.image = image
        self.identity = f"test-{uuid4().hex[:8]}"

    @asynccontextmanager
    async def life(self) -> AsyncGenerator[Runner, None]:
        runner = DockerRunner()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.serve)
                yield runner
                tasks.cancel_scope.cancel()
        finally:
            await runner.close()

    def work(self, script: str) -> Work:
        return ImageWork(image=self.image, entrypoint=("sh", "-c", script))

    def kill_from_outside(self, handle: RunHandle) -> None:
        container = handle.data["container_id"]
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)

    async def clean_up(self) -> None:
        filters = json.dumps({"label": [f"launch-async.identity={self.identity}"]})
        async with aiodocker.Docker() as docker:
            for container in await docker.containers.list(all=True, filters=filters):
                await container.delete(force=True, v=True)


def make_order(
    backend: Backend,
    script: str,
    *,
    run_id: str | None = None,
    item_id: str = "item-1",
    args: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    resource_args: Mapping[str, Any] | None = None,
) -> LaunchOrder:
    return LaunchOrder(
        origin=Origin(
            identity=backend.identity,
            life="life",
            service="http://h",
            item_id=ItemId(item_id),
            queue=QueueRef("team", "model-registry", "queue"),
            run=RunRef("team", "project", RunId(run_id or f"t{uuid4().hex[:7]}")),
            resource="fake",
        ),
        work=backend.work(script),
        args=args,
        environment=environment or {},
        secrets={"WANDB_API_KEY": Secret(SECRET)},
        resource_args=resource_args or {},
    )


async def statuses(runner: Runner, handle: RunHandle) -> list[RunStatus]:
    """All that a watch says, which must come to its end."""
    seen: list[RunStatus] = []
    with anyio.fail_after(40):
        async with aclosing(runner.watch(handle)) as watch:
            async for status in watch:
                seen.append(status)  # noqa: PERF401
    return seen


async def end_of(runner: Runner, handle: RunHandle) -> RunEnd:
    end = (await statuses(runner, handle))[-1].end
    assert end is not None
    return end


async def printed(runner: Runner, handle: RunHandle, text: str) -> None:
    """Return once the run has printed `text`."""
    with anyio.fail_after(20):
        while not any(text in line for line in await runner.log_tail(handle, lines=20)):
            await anyio.sleep(0.05)
