"""The backends of this package that the conformance suite runs on."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiodocker
import anyio
import anyio.abc
import msgspec

from launch_async.adapters.runners.docker.runner import DockerRunner
from launch_async.adapters.runners.process.runner import ProcessRunner
from launch_async.domain.run import RunHandle
from launch_async.ports.runner import CodeWork, ImageWork, LaunchOrder, Runner, Work
from launch_async.testing import Play, order_for


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

    def work(self, play: Play) -> Work:
        return self.script(play.shell)

    def script(self, script: str) -> Work:
        return CodeWork(
            directory=self.code,
            bin_directory=self.state_dir / "env" / "bin",
            entrypoint=("sh", "-c", script),
        )

    def kill_from_outside(self, handle: RunHandle) -> None:
        os.kill(handle.data["pid"], signal.SIGKILL)

    def cut_off(self) -> None:
        """Nothing is between a machine and itself."""

    async def clean_up(self) -> None:
        async with self.life() as runner:
            for found in await runner.find(self.identity):
                await runner.remove(found.handle)


class DockerBackend:
    """The real engine, behind a socket of its own that can be cut."""

    def __init__(self, image: str, engine: Path, folder: Path) -> None:
        self.image = image
        self.identity = f"test-{uuid4().hex[:8]}"
        self.wire = Wire(engine, folder / "wire.sock")

    @asynccontextmanager
    async def life(self, **settings: Any) -> AsyncGenerator[Runner, None]:
        async with anyio.create_task_group() as wires:
            if not self.wire.served:
                await wires.start(self.wire.serve)
            runner = DockerRunner(docker_host=f"unix://{self.wire.path}", **settings)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(runner.serve)
                    yield runner
                    tasks.cancel_scope.cancel()
            finally:
                await runner.close()
                wires.cancel_scope.cancel()

    def work(self, play: Play) -> Work:
        return self.script(play.shell)

    def script(self, script: str) -> Work:
        return ImageWork(image=self.image, entrypoint=("sh", "-c", script))

    def kill_from_outside(self, handle: RunHandle) -> None:
        container = handle.data["container_id"]
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)

    def cut_off(self) -> AbstractAsyncContextManager[None]:
        return self.wire.cut()

    async def clean_up(self) -> None:
        filters = json.dumps({"label": [f"launch-async.identity={self.identity}"]})
        async with aiodocker.Docker() as docker:
            for container in await docker.containers.list(all=True, filters=filters):
                await container.delete(force=True, v=True)


class Wire:
    """Stands between a runner and the engine, and can be cut."""

    def __init__(self, engine: Path, path: Path) -> None:
        self.engine = engine
        self.path = path
        self.served = False
        self.requests: Counter[str] = Counter()
        self._scope: anyio.CancelScope | None = None
        self._whole = anyio.Event()

    @asynccontextmanager
    async def cut(self) -> AsyncGenerator[None, None]:
        self._whole = anyio.Event()
        if self._scope is not None:
            self._scope.cancel()
        try:
            yield
        finally:
            self._whole.set()

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        self.served = True
        try:
            while True:
                with anyio.CancelScope() as self._scope:
                    await self._listen(task_status)
                task_status = anyio.TASK_STATUS_IGNORED
                self.path.unlink(missing_ok=True)
                await self._whole.wait()
        finally:
            self.served = False

    async def _listen(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with anyio.create_task_group() as tasks:

            def accept(asks: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
                tasks.start_soon(self._pass_on, asks, answers)

            async with await asyncio.start_unix_server(accept, self.path):
                task_status.started()
                await anyio.sleep_forever()

    async def _pass_on(self, asks: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        with aborting(answers):
            says, told = await asyncio.open_unix_connection(self.engine)
            with aborting(told):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(pump, asks, told, tasks.cancel_scope, self._count)
                    tasks.start_soon(pump, says, answers, tasks.cancel_scope)

    def _count(self, piece: bytes) -> None:
        for path in re.findall(rb"(?:GET|POST|DELETE) ([^ ]+) HTTP", piece):
            name = "inspect" if path.endswith(b"/json") and b"/containers/json" not in path else ""
            self.requests[name or path.decode().partition("?")[0]] += 1


@contextmanager
def aborting(writer: asyncio.StreamWriter) -> Generator[None, None, None]:
    try:
        yield
    finally:
        writer.transport.abort()


async def pump(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    scope: anyio.CancelScope,
    count: Callable[[bytes], None] = lambda _: None,
) -> None:
    with suppress(ConnectionError):
        while piece := await source.read(1 << 16):
            count(piece)
            sink.write(piece)
            await sink.drain()
    scope.cancel()


def make_order(
    backend: ProcessBackend | DockerBackend,
    script: str,
    *,
    run_id: str | None = None,
    item_id: str = "item-1",
    args: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    resource_args: Mapping[str, Any] | None = None,
) -> LaunchOrder:
    """An order for a script of a test's own."""
    order = order_for(
        backend,
        Play(),
        run_id=run_id,
        item_id=item_id,
        args=args,
        environment=environment,
        resource_args=resource_args,
    )
    return msgspec.structs.replace(order, work=backend.script(script))
