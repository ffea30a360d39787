"""Limits and stops with real processes: what must end is gone, and what must not lives on."""

import os
import sys
from pathlib import Path

import msgspec
import pytest
from fakes import World, an_item, running, until

from launch_async.adapters.bundles.folder import BundleFolder
from launch_async.adapters.runners.process.runner import ProcessRunner
from launch_async.agent.timeouts import QueueTimeouts, Timeouts
from launch_async.domain.errors import Reason
from launch_async.domain.ids import ItemId
from launch_async.domain.item import Item
from launch_async.kit.keep import Keep
from launch_async.ports.build import BuildOrder
from launch_async.ports.runner import CodeWork
from launch_async.ports.runs import RunView

pytestmark = pytest.mark.anyio

SLEEPER = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"


class ScriptBuilder:
    """Runs a script with the Python of the tests."""

    def __init__(self, state_dir: Path, script: str) -> None:
        self._runs = state_dir / "runs"
        self._script = script

    async def build(self, order: BuildOrder) -> CodeWork:
        code = self._runs / order.item.run_id / "code"
        code.mkdir(parents=True, exist_ok=True)
        return CodeWork(
            directory=code,
            bin_directory=Path(sys.executable).parent,
            entrypoint=("python", "-c", self._script),
        )

    async def discard(self, item: Item) -> None:
        pass


def world_of(tmp_path: Path, script: str) -> World:
    world = World()
    world.runner = ProcessRunner(tmp_path)  # type: ignore[assignment]
    world.builder = ScriptBuilder(tmp_path, script)  # type: ignore[assignment]
    keep = Keep(max_age_seconds=60, max_bytes=10**6)
    world.bundles = BundleFolder(tmp_path, keep)  # type: ignore[assignment]
    return world


async def pid_of(tmp_path: Path) -> int:
    """What the job says of itself once it runs."""
    output = tmp_path / "runs" / "runq1" / "output.log"
    await until(lambda: output.exists() and output.read_text().endswith("\n"))
    return int(output.read_text().split()[1])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_an_overdue_process_is_gone_and_its_bundle_tells_why(tmp_path: Path):
    world = world_of(tmp_path, SLEEPER)
    world.timeouts = Timeouts(queues={"q": QueueTimeouts(run_seconds=1.0)})
    world.service.push(an_item())
    async with running(world.agent()) as agent:
        pid = await pid_of(tmp_path)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"run_timeout": 1}
    assert not alive(pid)
    assert not (tmp_path / "runs" / "runq1").exists()
    bundle = msgspec.json.decode((tmp_path / "bundles" / "q-1" / "bundle.json").read_bytes())
    assert bundle["reason"] == "run_timeout"
    assert "`run_timeout of the queue q`" in bundle["message"]
    assert bundle["backend"]["name"] == "process"
    assert f"pid {pid}" in (tmp_path / "bundles" / "q-1" / "error" / "error.log").read_text()


async def test_a_run_timeout_goes_on_counting_in_the_next_life(tmp_path: Path):
    world = world_of(tmp_path, SLEEPER)
    world.service.push(an_item())
    async with running(world.agent()) as first:
        pid = await pid_of(tmp_path)
        await until(lambda: first.view().launched)
    assert alive(pid)
    entry = world.journal.kept[ItemId("q-1")]
    assert entry.launched is not None
    hour_ago = msgspec.structs.replace(entry.launched, monotonic=entry.launched.monotonic - 3600)
    world.journal.kept[entry.item.id] = msgspec.structs.replace(entry, launched=hour_ago)
    world.timeouts = Timeouts(run_seconds=3600, settle_seconds=0.1)
    async with running(world.agent()) as second:
        await until(lambda: second.view().ended)
    assert second.view().ended == {"run_timeout": 1}
    assert not alive(pid)


async def test_a_stopped_process_is_gone_after_its_grace(tmp_path: Path):
    world = world_of(tmp_path, SLEEPER)
    item = an_item()
    world.service.push(item)
    async with running(world.agent()) as agent:
        pid = await pid_of(tmp_path)
        world.service.runs[item.run] = RunView(state="running", stop_requested=True)
        await until(lambda: agent.view().ended)
    assert agent.view().ended == {"stopped": 1}
    assert not alive(pid)


async def test_a_process_that_ends_by_itself_leaves_what_it_said(tmp_path: Path):
    world = world_of(tmp_path, "import os; print('x' * 9); os.kill(os.getpid(), 9)")
    world.service.push(an_item())
    async with running(world.agent()):
        await until(lambda: world.service.failed)
    outcome, files = world.service.failed[ItemId("q-1")]
    assert (outcome.reason, outcome.signal) == (Reason.KILLED, 9)
    assert outcome.log_tail == ("x" * 9,)
    assert files == ["q-1/error/error.log", "q-1/bundle.json"]
