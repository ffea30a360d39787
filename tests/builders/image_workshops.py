"""The builders of images on real engines and daemons, and what tests ask of each alike.

A `Workshop` is one builder with what its images are called, whence they start and how they run.
Run as a program it is a client that can be killed: it builds the order on its standard input.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import msgspec

from build_tools import find_buildkit, find_buildx
from launch_async.adapters.builders.buildkit import BuildkitBuilder, BuildkitServer
from launch_async.adapters.builders.buildx import BuildxBuilder
from launch_async.adapters.builders.engine import EngineBuilder
from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.ports.images import ImageBuild, ImageBuilder, RegistryLogin, RegistryLogins
from launch_async.wire.docker import DockerConnection
from registry_servers import Registry

KINDS = ("classic", "engine", "buildx", "buildkit")
_numbers = itertools.count(1)


class KnownLogins:
    """Implements `ports.images.RegistryLogins`: a list for each host, the last login for good."""

    def __init__(self, logins: Mapping[str, Iterable[RegistryLogin]] | None = None) -> None:
        self.logins = {host: list(found) for host, found in (logins or {}).items()}
        self.asked: list[str] = []

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        self.asked.append(str(image))
        found = self.logins.get(image.host)
        if not found:
            return None
        return found.pop(0) if len(found) > 1 else found[0]


class Workshop(msgspec.Struct, frozen=True):
    kind: str
    builder: ImageBuilder
    base: str
    """The tiny image, where this builder finds it."""
    registry: Registry
    """Where images of a builder go that pushes always."""
    folder: Path
    """For contexts and logs."""
    logins_folder: Path

    @property
    def pushes(self) -> bool:
        return self.kind == "buildkit"

    def image(self) -> str:
        """A reference that nobody used before."""
        name = f"launch-async-test/built-{os.getpid()}-{next(_numbers)}:1"
        return f"{self.registry.host}/{name}" if self.pushes else name

    def context(self, recipe: str, files: Mapping[str, str] | None = None) -> Path:
        """A folder with a Dockerfile, in which BASE is the tiny image, and other files."""
        folder = self.folder / f"context-{next(_numbers)}"
        for name, text in {"Dockerfile": recipe, **(files or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("BASE", self.base))
        return folder

    def order(self, recipe: str, files: Mapping[str, str] | None = None, **more) -> ImageBuild:
        facts = {
            "context": self.context(recipe, files),
            "dockerfile": "Dockerfile",
            "image": self.image(),
            "push": self.pushes,
            "log": self.folder / f"{next(_numbers)}.log",
        }
        return ImageBuild(**(facts | more))

    async def build(self, recipe: str, files: Mapping[str, str] | None = None, **more):
        """Build it and return the order."""
        order = self.order(recipe, files, **more)
        await self.builder.build(order, lambda _: None)
        return order

    async def has(self, image: str) -> bool:
        """Whether the image is where this builder puts it."""
        if not self.pushes:
            return bool(await docker("images", "--quiet", image))
        ref = ImageRef.parse(image)
        url = f"http://{ref.host}/v2/{ref.repository}/manifests/{ref.tag}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status == 200

    async def run(self, image: str, *command: str) -> str:
        """What a command prints in a container of the image, pulled from where it was pushed."""
        pull = ["--pull=always"] if self.pushes else []
        return await docker("run", "--rm", "--network=none", *pull, image, *command)


def make_builder(
    kind: str, connection: DockerConnection, logins: RegistryLogins, folder: Path
) -> ImageBuilder:
    """The builder of a kind; logins lie in `folder`."""
    match kind:
        case "classic" | "engine":
            return EngineBuilder(connection, logins, buildkit=False if kind == "classic" else None)
        case "buildx":
            return BuildxBuilder(connection, logins, folder=folder, user_folder=find_buildx())
        case _:
            found = find_buildkit()
            assert found is not None
            place = BuildkitServer(address=found.address)
            return BuildkitBuilder(place, logins, folder=folder, program=found.buildctl)


async def docker(*words: str) -> str:
    done = await anyio.run_process(["docker", *words], stderr=subprocess.PIPE)
    return done.stdout.decode()


def login_of(registry: Registry, password: str | None = None) -> RegistryLogin:
    return RegistryLogin(
        username=registry.username or "", password=Secret(password or registry.password or "")
    )


def processes_with(mark: str) -> list[str]:
    """Command lines on this machine, in containers too, that hold `mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in line:
            found.append(line)
    return found


def sleeping(seconds: str) -> bool:
    """Whether a RUN sleeps for just so long."""
    return any(line.strip() == f"sleep {seconds}" for line in processes_with(f"sleep {seconds}"))


def has_container(mark: str) -> bool:
    """Whether the engine has a container, ended ones too, with `mark` in its command."""
    command = ["docker", "ps", "--all", "--no-trunc", "--format={{.Command}}"]
    return mark in subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def until(condition: Callable[[], bool], *, within_seconds: float) -> None:
    """Return once it holds; it is looked at from a thread, as it may block."""
    with anyio.fail_after(within_seconds):
        while not await anyio.to_thread.run_sync(condition):
            await anyio.sleep(0.02)


def unique_seconds() -> str:
    """A time to sleep that no other RUN on this machine sleeps."""
    return f"60.{os.getpid()}{next(_numbers)}"


async def _build(kind: str, folder: Path) -> None:
    order = msgspec.json.decode(
        sys.stdin.buffer.read(), type=ImageBuild, dec_hook=lambda kind, text: kind(text)
    )
    builder = make_builder(kind, DockerConnection(), KnownLogins(), folder)
    await builder.check()
    await builder.build(order, lambda _: None)


if __name__ == "__main__":
    anyio.run(_build, sys.argv[1], Path(sys.argv[2]))
