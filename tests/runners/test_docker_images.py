"""Images come from the engine or a real registry, with a login where one is wanted."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiodocker
import msgspec
import pytest
from runner_backends import DockerBackend, make_order

from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.ports.images import RegistryLogin
from launch_async.ports.runner import LaunchOrder
from launch_async.testing import end_of
from registry_servers import Registries, Registry

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
async def backend(
    tiny_image: str, docker_engine: Any, tmp_path: Path
) -> AsyncGenerator[DockerBackend, None]:
    docker = DockerBackend(tiny_image, docker_engine.socket_path, tmp_path)
    yield docker
    await docker.clean_up()


class Login:
    """Knows one login, whatever is asked for."""

    def __init__(self, username: str, password: str) -> None:
        self.found = RegistryLogin(username=username, password=Secret(password))

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        del image
        return self.found


async def pushed(registry: Registry, image: str) -> str:
    """The tiny image under a new name in the registry, and not on the engine."""
    name = f"{registry.host}/team/sub/tiny-{uuid4().hex[:8]}"
    auth = {"username": registry.username or "x", "password": registry.password or "x"}
    async with aiodocker.Docker() as docker:
        await docker.images.tag(image, name, tag="1")
        await docker.images.push(name, tag="1", auth=auth)
        await docker.images.delete(f"{name}:1")
    return f"{name}:1"


def order_of(backend: DockerBackend, image: str, **resource_args: Any) -> LaunchOrder:
    order = make_order(backend, "exit 7", resource_args=resource_args)
    return msgspec.structs.replace(order, work=msgspec.structs.replace(order.work, image=image))


async def test_an_image_behind_a_login_is_pulled_with_it_and_not_without(
    backend: DockerBackend, registries: Registries
) -> None:
    registry = registries.login
    image = await pushed(registry, backend.image)
    assert registry.username is not None
    assert registry.password is not None
    async with backend.life() as runner:
        with pytest.raises(ItemError, match="does not let this agent pull") as denied:
            await runner.launch(order_of(backend, image))
    assert denied.value.reason is Reason.REGISTRY_DENIED
    async with backend.life(logins=Login(registry.username, "wrong-planted")) as runner:
        with pytest.raises(ItemError, match="does not let this agent pull") as denied:
            await runner.launch(order_of(backend, image))
    assert "wrong-planted" not in str(denied.value)
    async with backend.life(logins=Login(registry.username, registry.password)) as runner:
        end = await end_of(runner, await runner.launch(order_of(backend, image)))
    assert end.exit_code == 7


async def test_an_image_that_is_not_there_is_named(
    backend: DockerBackend, registries: Registries
) -> None:
    image = f"{registries.open.host}/no/such-image:1"
    async with backend.life() as runner:
        with pytest.raises(ItemError, match="no/such-image:1 could not be pulled") as missing:
            await runner.launch(order_of(backend, image))
    assert missing.value.reason is Reason.IMAGE_NOT_FOUND


async def test_a_registry_that_is_away_is_no_fault_of_the_item(backend: DockerBackend) -> None:
    async with backend.life() as runner:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9/x/y:1 could not be pulled"):
            await runner.launch(order_of(backend, "127.0.0.1:9/x/y:1"))


async def test_an_image_is_never_pulled_if_the_queue_says_so(
    backend: DockerBackend, registries: Registries
) -> None:
    image = await pushed(registries.open, backend.image)
    async with backend.life() as runner:
        with pytest.raises(ItemError, match="`pull` is never"):
            await runner.launch(order_of(backend, image, pull="never"))
        end = await end_of(runner, await runner.launch(order_of(backend, image)))
    assert end.exit_code == 7


async def test_an_image_is_fetched_anew_if_the_queue_says_always(
    backend: DockerBackend, registries: Registries, python_image: str
) -> None:
    image = await pushed(registries.open, backend.image)
    async with aiodocker.Docker() as docker:
        await docker.images.tag(python_image, image.rpartition(":")[0], tag="1")
    async with backend.life() as runner:
        handle = await runner.launch(order_of(backend, image, pull="always"))
        assert (await end_of(runner, handle)).exit_code == 7
    async with aiodocker.Docker() as docker:
        tiny = await docker.images.inspect(backend.image)
    assert handle.data["image_digest"] == tiny["Id"]


async def test_code_is_put_into_the_container_where_the_run_starts_and_may_write(
    backend: DockerBackend, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    (code / "sub").mkdir(parents=True)
    (code / "sub" / "train.sh").write_text("echo here > made; cat made; exit 9\n")
    order = make_order(backend, "pwd; sh sub/train.sh")
    order = msgspec.structs.replace(order, work=msgspec.structs.replace(order.work, code=code))
    async with backend.life() as runner:
        handle = await runner.launch(order)
        end = await end_of(runner, handle)
        assert await runner.log_tail(handle, lines=9) == ("/mnt/wandb", "here")
    assert end.exit_code == 9
    assert not (code / "made").exists()
