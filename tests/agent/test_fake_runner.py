"""The fake runner keeps a real one's promises; else what is tested on it would prove nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import msgspec
import pytest
from fakes import FakeRunner

from launch_async.domain.ids import RunId
from launch_async.domain.run import RunEnd, RunHandle
from launch_async.ports.runner import ImageWork, LaunchOrder, Runner, Work
from launch_async.testing import Play, RunnerConformance


class PlayedRunner(FakeRunner):
    """Its runs do by themselves what their play says."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        super().__init__()
        self.tasks = tasks
        self.polite: set[RunId] = set()
        self.stubborn: set[RunId] = set()

    async def launch(self, order: LaunchOrder) -> RunHandle:
        before = self.launches[order.run.run_id]
        handle = await super().launch(order)
        if self.launches[order.run.run_id] > before:
            self.tails[order.run.run_id] = ()
            self.tasks.start_soon(self._play, order)
        return handle

    async def cancel(self, handle: RunHandle, *, within_seconds: float) -> None:
        run_id = handle.run_id
        if self.is_alive(handle) and run_id in self.polite:
            self.tails[run_id] += ("bye",)
            await self.end(run_id, RunEnd(exit_code=7))
        elif run_id in self.stubborn:
            await anyio.sleep(within_seconds)
        await super().cancel(handle, within_seconds=within_seconds)

    async def _play(self, order: LaunchOrder) -> None:
        run_id, play = order.run.run_id, msgspec.json.decode(order.work.entrypoint[0], type=Play)
        {"leave": self.polite, "ignore": self.stubborn}.get(play.on_term, set()).add(run_id)
        secrets = {name: secret.reveal() for name, secret in order.secrets.items()}
        variables = {**order.environment, **secrets}
        lines = [f"{name}={variables[name]}" for name in play.shows]
        lines += [f"args: {' '.join(order.args)}"] if play.shows_args else []
        self.tails[run_id] = (*lines, *play.prints, *play.prints_errors)
        async with self.changed:
            self.changed.notify_all()
        await anyio.sleep(play.seconds)
        if self.orders.get(run_id) is order:
            await self.end(run_id, RunEnd(exit_code=play.exit_code))


class FakeBackend:
    identity = "same"

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.runner = PlayedRunner(tasks)

    @asynccontextmanager
    async def life(self) -> AsyncGenerator[Runner, None]:
        yield self.runner

    def work(self, play: Play) -> Work:
        return ImageWork(image="fake", entrypoint=(msgspec.json.encode(play).decode(),))

    def kill_from_outside(self, handle: RunHandle) -> None:
        end = RunEnd(exit_code=None, signal=9, detail="killed by SIGKILL")
        self.runner.tasks.start_soon(self.runner.end, handle.run_id, end)

    def cut_off(self) -> None:
        """Nothing is between a test and its fake."""


class TestTheFake(RunnerConformance):
    @pytest.fixture
    async def backend(self) -> AsyncGenerator[FakeBackend, None]:
        async with anyio.create_task_group() as tasks:
            yield FakeBackend(tasks)
            tasks.cancel_scope.cancel()
