"""Images that were made here leave the engine when nobody needs them, and no others do."""

import os
import subprocess
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiodocker
import msgspec
import pytest
from runner_backends import DockerBackend, make_order

from launch_async.adapters.runners.docker.engine import Engine
from launch_async.adapters.runners.docker.shelf import ImageShelf
from launch_async.domain.errors import Unavailable
from launch_async.kit.keep import Keep
from launch_async.testing import end_of

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

LABEL = "launch-async.test-image"
NOTHING = Keep(max_age_seconds=0.0, max_bytes=0)


@pytest.fixture
async def backend(
    tiny_image: str, docker_engine: Any, tmp_path: Path
) -> AsyncGenerator[DockerBackend, None]:
    docker = DockerBackend(tiny_image, docker_engine.socket_path, tmp_path)
    yield docker
    await docker.clean_up()


@pytest.fixture
async def engine(docker_engine: Any) -> AsyncGenerator[Engine, None]:
    engine = Engine(docker_engine.url)
    yield engine
    await engine.close()


@pytest.fixture
def make(tiny_image: str, tmp_path: Path) -> Callable[[str], str]:
    def build(label: str) -> str:
        name = f"shelf-test/{uuid4().hex[:8]}:1"
        text = f"FROM {tiny_image}\nLABEL {label}={uuid4().hex}\n"
        build_it = ["docker", "build", "-q", "-t", name, "-"]
        subprocess.run(build_it, input=text.encode(), check=True, capture_output=True, timeout=60)
        return name

    return build


async def there(image: str) -> bool:
    async with aiodocker.Docker() as docker:
        listed = await docker.images.list()
    return any(image in (one["RepoTags"] or ()) for one in listed)


async def test_only_unused_images_of_ours_are_removed(
    backend: DockerBackend, engine: Engine, make: Callable[[str], str], tmp_path: Path
) -> None:
    idle, needed, others = make(LABEL), make(LABEL), make("somebody.else")
    order = make_order(backend, "exit 0")
    order = msgspec.structs.replace(order, work=msgspec.structs.replace(order.work, image=needed))
    shelf = ImageShelf(engine, tmp_path / "notes", NOTHING, label=LABEL)
    async with backend.life() as runner:
        handle = await runner.launch(order)
        await end_of(runner, handle)
        assert (await shelf.prune(set())).removed == 1
        assert [await there(one) for one in (idle, needed, others)] == [False, True, True]
        await runner.remove(handle)
        assert (await shelf.prune(set())).removed == 1
        assert [await there(one) for one in (needed, others)] == [False, True]
    subprocess.run(["docker", "rmi", others], check=True, capture_output=True, timeout=60)


async def test_the_longest_unused_go_first_and_a_run_is_a_use(
    backend: DockerBackend, engine: Engine, make: Callable[[str], str], tmp_path: Path
) -> None:
    label = f"{LABEL}.{uuid4().hex[:8]}"
    used, unused = make(label), make(label)
    async with aiodocker.Docker() as docker:
        facts = [await docker.images.inspect(image) for image in (used, unused)]
    keep = Keep(max_age_seconds=1e9, max_bytes=facts[0]["Size"] + 1)
    shelf = ImageShelf(engine, tmp_path / "notes", keep, label=label)
    await shelf.note_use(facts[0]["Id"])
    (note,) = (tmp_path / "notes").iterdir()
    later = note.stat().st_mtime + 60
    os.utime(note, (later, later))
    assert (await shelf.prune(set())).removed == 1
    assert [await there(used), await there(unused)] == [True, False]
    subprocess.run(["docker", "rmi", used], check=True, capture_output=True, timeout=60)


async def test_an_engine_without_room_is_not_ready(backend: DockerBackend) -> None:
    async with backend.life(min_free_bytes=1 << 60) as runner:
        with pytest.raises(Unavailable, match=r"agent\.docker\.min_free_mb"):
            await runner.check()
    async with backend.life(min_free_bytes=1) as runner:
        await runner.check()
