"""The builders of images, each on the real thing that it builds on."""

import itertools
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import NoReturn

import anyio
import pytest
from image_workshops import KINDS, KnownLogins, Workshop, docker, login_of, make_builder

from build_tools import BUILDKIT_REMEDY, BUILDX_REMEDY, Buildkit, find_buildkit, find_buildx
from launch_async.adapters.builders.engine_images import EngineImages
from launch_async.domain.image import ImageRef
from launch_async.wire.docker import DockerConnection
from registry_servers import REMEDY as REGISTRY_REMEDY
from registry_servers import Registries, find_registries

NEEDS = {"buildx": ("buildx_folder",), "buildkit": ("buildkit",)}
_numbers = itertools.count(1)

Miss = Callable[[str], NoReturn]


@pytest.fixture(scope="session")
def registries(miss: Miss) -> Registries:
    return find_registries() or miss(f"no image registries answer: {REGISTRY_REMEDY}")


@pytest.fixture(scope="session")
def buildx_folder(miss: Miss) -> Path:
    return find_buildx() or miss(f"no docker buildx here: {BUILDX_REMEDY}")


@pytest.fixture(scope="session")
def buildkit(miss: Miss) -> Buildkit:
    return find_buildkit() or miss(f"no buildkitd answers: {BUILDKIT_REMEDY}")


@pytest.fixture(scope="session")
def pushed_tiny_image(tiny_image: str, registries: Registries) -> str:
    """The tiny image in the open registry, for builders that see no engine."""
    name = f"{registries.open.host}/{tiny_image}"
    for command in (["tag", tiny_image, name], ["push", "--quiet", name]):
        subprocess.run(["docker", *command], check=True, capture_output=True)
    return name


@pytest.fixture(scope="module")
def swept() -> Generator[None]:
    """Removes the images that this process built."""
    yield
    listed = ["docker", "images", "--format={{.Repository}}:{{.Tag}}"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    own = [name for name in names if f"/built-{os.getpid()}-" in name]
    if own:
        subprocess.run(["docker", "rmi", "--force", *own], check=True, capture_output=True)


@pytest.fixture
async def connection(anyio_backend: str) -> AsyncGenerator[DockerConnection]:
    connection = DockerConnection()
    yield connection
    await connection.close()


@pytest.fixture
def logins() -> KnownLogins:
    """None, until a test puts some in."""
    return KnownLogins()


@pytest.fixture
async def private_base(
    connection: DockerConnection, tiny_image: str, registries: Registries
) -> AsyncGenerator[str]:
    """The tiny image in the registry that wants a login, under a name that no engine knows."""
    name = f"{registries.login.host}/team/base-{os.getpid()}-{next(_numbers)}:1"
    known = KnownLogins({registries.login.host: [login_of(registries.login)]})
    await docker("tag", tiny_image, name)
    await EngineImages(connection).push(ImageRef.parse(name), known)
    await docker("rmi", name)
    yield name
    await anyio.run_process(["docker", "rmi", "--force", name], check=False)


@pytest.fixture(params=KINDS)
async def workshop(
    request: pytest.FixtureRequest,
    connection: DockerConnection,
    logins: KnownLogins,
    registries: Registries,
    tmp_path: Path,
) -> Workshop:
    kind, lent = request.param, tmp_path / "logins"
    for needed in ("swept", *NEEDS.get(kind, ())):
        request.getfixturevalue(needed)
    builder = make_builder(kind, connection, logins, lent)
    await builder.check()
    base = "pushed_tiny_image" if kind == "buildkit" else "tiny_image"
    return Workshop(
        kind=kind,
        builder=builder,
        base=request.getfixturevalue(base),
        registry=registries.open,
        folder=tmp_path,
        logins_folder=lent,
    )
