"""What the flow remembers of bases and of contexts, and what it forgets."""

from functools import partial
from pathlib import Path

import anyio
import pytest
from image_builds import order_for, write
from maker_site import FakeBuilder, Store

from launch_async.domain.errors import ItemError, Unavailable
from launch_async.images.bases import Bases
from launch_async.images.contexts import Contexts
from launch_async.images.recipe import recipe_of
from launch_async.ports.jobs import Code

pytestmark = pytest.mark.anyio

BASE = "docker.io/library/base:latest"


async def test_an_outage_of_a_bases_registry_makes_no_other_image():
    registry = Store()
    bases = Bases(FakeBuilder(Store()), registry, platform=None, believed_seconds=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bases.serve)
        registry.fault = Unavailable("away")
        assert await bases.digest("base") is None
        registry.fault, registry.digests[BASE] = None, "sha256:1"
        assert await bases.digest("base") == "sha256:1"
        registry.fault = Unavailable("away")
        assert await bases.digest("base") == "sha256:1"
        registry.fault, registry.digests[BASE] = None, "sha256:2"
        assert await bases.digest("base") == "sha256:2"
        tasks.cancel_scope.cancel()


async def test_what_a_registry_says_of_a_base_is_believed_for_a_while():
    registry = Store()
    bases = Bases(FakeBuilder(Store()), registry, platform=None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bases.serve)
        async with anyio.create_task_group() as asking:
            for _ in range(50):
                asking.start_soon(bases.digest, "base")
        assert registry.asked == [BASE]
        tasks.cancel_scope.cancel()


async def scanned(contexts: Contexts, folder: Path) -> str:
    recipe = recipe_of(order_for(folder, dockerfile="Dockerfile"))
    return (await contexts.scanned(Code(folder=folder, key=folder.name), recipe)).digest


async def test_a_context_is_read_once_and_forgotten_when_there_are_too_many(tmp_path: Path):
    """Code never changes under its key; here it does, to show when it is read."""
    folders = [write(tmp_path / name, {"Dockerfile": "FROM a\n", "a": name}) for name in "ABC"]
    contexts = Contexts(max_entries=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(contexts.serve)
        first, second = [await scanned(contexts, folder) for folder in folders[:2]]
        for folder in folders[:2]:
            (folder / "a").write_text("changed")
        assert await scanned(contexts, folders[0]) == first
        await scanned(contexts, folders[2])
        assert await scanned(contexts, folders[0]) == first
        assert await scanned(contexts, folders[1]) != second
        tasks.cancel_scope.cancel()


async def test_a_context_that_is_too_large_to_remember_is_scanned_all_the_same(tmp_path: Path):
    folder = write(tmp_path / "A", {"Dockerfile": "FROM a\n", "a": "1", "b": "2"})
    contexts = Contexts(max_entries=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(contexts.serve)
        assert await scanned(contexts, folder) == await scanned(contexts, folder)
        tasks.cancel_scope.cancel()


async def test_who_waits_for_a_context_that_cannot_be_read_is_told_why(tmp_path: Path):
    folder = write(tmp_path / "A", {"Dockerfile": "FROM a\n"})
    recipe = recipe_of(order_for(folder, dockerfile="Dockerfile"))
    contexts = Contexts()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(contexts.serve)
        folder.rename(tmp_path / "gone")
        ask = partial(contexts.scanned, Code(folder=folder, key="A"), recipe)
        with pytest.raises(ItemError, match="cannot be read"):
            await ask()
        (tmp_path / "gone").rename(folder)
        assert (await ask()).size > 0
        tasks.cancel_scope.cancel()
