"""Runners of other packages: found by entry point, loaded when needed, as good as ours."""

import os
import shutil
import signal
import sys
import tomllib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from launch_async.compose.plugins import LazyRunner, plugin_logins, plugin_targets
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.ids import ItemId, QueueRef, RunId
from launch_async.domain.image import ImageRef
from launch_async.domain.item import Item
from launch_async.domain.job import ImageSource, Job
from launch_async.domain.run import RunHandle
from launch_async.domain.spec import RunSpec
from launch_async.kit.names import plain_name
from launch_async.ports.build import BuildOrder
from launch_async.ports.runner import ImageWork, Runner, Work
from launch_async.testing import Play, RunnerConformance, order_for

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin-runner"
IDENTITY = "one-agent"


def install(site: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """What an installer leaves behind, as far as entry points need it."""
    facts = site / f"{name}-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = []
    for group, entries in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for packages, with the example in it."""
    folder = tmp_path / "site"
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(folder, project["name"], project["entry-points"])
    shutil.copy(EXAMPLE / "launch_folder.py", folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("launch_folder", None)


SPEC = RunSpec(entity="e", project="p", image="x")


def targets(state_dir: Path) -> dict[str, Any]:
    slots = anyio.CapacityLimiter(1)
    return plugin_targets(state_dir, jobs=object(), slots=slots, taken={"local-process"})


class FolderBackend:
    identity = IDENTITY

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder / "state"
        self.code = folder / "code"
        self.code.mkdir()

    @asynccontextmanager
    async def life(self) -> AsyncGenerator[Runner, None]:
        runner = targets(self.state_dir)["local-folder"].runner
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.serve)
            yield runner
            tasks.cancel_scope.cancel()

    def work(self, play: Play) -> Work:
        return ImageWork(image=str(self.code), entrypoint=("sh", "-c", play.shell))

    def kill_from_outside(self, handle: RunHandle) -> None:
        run = self.state_dir / "plugins" / "local-folder" / plain_name(handle.run_id)
        wrapper = int((run / "pid").read_text())
        (job,) = Path(f"/proc/{wrapper}/task/{wrapper}/children").read_text().split()
        os.kill(int(job), signal.SIGKILL)

    def cut_off(self) -> None:
        """Nothing is between a machine and itself."""


class TestTheExample(RunnerConformance):
    @pytest.fixture
    async def backend(self, site: Path, tmp_path: Path) -> AsyncGenerator[FolderBackend, None]:
        made = FolderBackend(tmp_path)
        yield made
        async with made.life() as runner:
            for found in await runner.find(IDENTITY):
                await runner.remove(found.handle)


def test_the_example_stays_short():
    code = [line for line in (EXAMPLE / "launch_folder.py").read_text().splitlines() if line]
    assert len(code) <= 150


async def test_a_plug_in_is_imported_by_the_first_item_that_needs_it(site: Path, tmp_path: Path):
    runner = targets(tmp_path)["local-folder"].runner
    assert isinstance(runner, LazyRunner)
    assert await runner.find(IDENTITY) == ()
    assert "launch_folder" not in sys.modules
    await runner.check()
    assert "launch_folder" in sys.modules


async def test_a_plug_in_that_was_used_before_is_asked_for_its_runs(site: Path, tmp_path: Path):
    backend = FolderBackend(tmp_path)
    async with backend.life() as first:
        await first.launch(order_for(backend, Play()))
    async with backend.life() as second:
        assert len(await second.find(IDENTITY)) == 1


async def test_a_broken_plug_in_is_one_clear_error_and_costs_the_others_nothing(
    site: Path, tmp_path: Path
):
    install(site, "broken", {"launch_async.runners": {"cloudy": "no_such_module:Runner"}})
    found = targets(tmp_path)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(
                ItemError, match=r"cloudy of broken .*no_such_module.* upgrade"
            ) as e:
                await found["cloudy"].runner.check()
            assert e.value.reason is Reason.TARGET_UNSUPPORTED
    assert [line["event"] for line in logs] == ["plug-in cannot be used"]
    await found["local-folder"].runner.check()


async def test_a_plug_in_cannot_take_the_place_of_our_own_runner(site: Path, tmp_path: Path):
    install(site, "thief", {"launch_async.runners": {"local-process": "thief:Runner"}})
    assert set(targets(tmp_path)) == {"local-folder"}


async def test_a_plug_ins_builder_is_loaded_when_something_is_built(site: Path, tmp_path: Path):
    install(site, "builder", {"launch_async.builders": {"local-folder": "a_builder:open_builder"}})
    (site / "a_builder.py").write_text(
        "class Builder:\n"
        "    def __init__(self, folder, jobs): self.folder, self.jobs = folder, jobs\n"
        "    async def build(self, order): return self.folder, order.entrypoint\n"
        "open_builder = Builder\n"
    )
    builder = targets(tmp_path)["local-folder"].builder
    item = Item(
        id=ItemId("i"), queue=QueueRef("e", "p", "q"), run_id=RunId("r"), spec=SPEC, popped_at=0.0
    )
    await builder.discard(item)
    assert "a_builder" not in sys.modules
    order = BuildOrder(item=item, job=Job(source=ImageSource("x")), entrypoint=("run",))
    assert await builder.build(order) == (tmp_path / "plugins" / "local-folder", ("run",))


async def test_a_plug_ins_logins_are_asked_for_its_registry_alone(site: Path, tmp_path: Path):
    install(site, "cloud", {"launch_async.registries": {"registry.example": "a_cloud:Logins"}})
    (site / "a_cloud.py").write_text(
        "class Logins:\n"
        "    def __init__(self, folder): self.folder = folder\n"
        "    async def login(self, image): return image.repository\n"
    )
    (logins,) = plugin_logins(tmp_path)
    assert await logins.login(ImageRef.parse("other.example/team/app")) is None
    assert "a_cloud" not in sys.modules
    assert await logins.login(ImageRef.parse("registry.example/team/app")) == "team/app"
