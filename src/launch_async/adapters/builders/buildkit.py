"""Builds on a remote `buildkitd` by `buildctl`; images go straight to their registry."""

from collections.abc import Mapping
from pathlib import Path

import anyio.to_thread
import msgspec

from launch_async.adapters.builders.buildctl import build_words, cache_of
from launch_async.adapters.builders.context import bases_of, dockerfile_of, images_of
from launch_async.adapters.builders.faults import build_error, build_failed, is_denied, is_push
from launch_async.adapters.builders.output import Output, open_output
from launch_async.adapters.builders.programs import (
    NotInstalled,
    ask,
    program_environment,
    run_build,
)
from launch_async.adapters.builders.steps import Failure, PlainSteps
from launch_async.adapters.builders.tries import PushTries
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.ports.images import ImageBuild, RegistryLogin, RegistryLogins, Say
from launch_async.wire.docker_config import docker_config_folder


class BuildkitServer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a `buildkitd` listens and how it is trusted."""

    address: str
    """`tcp://HOST:PORT`, `unix:///PATH` or another that `buildctl --addr` takes."""
    ca: Path | None = None
    """File with the authority that its certificate is of; None: the machine's."""
    certificate: Path | None = None
    key: Path | None = None
    """The agent's own certificate and its key, where the server asks for one."""
    server_name: str | None = None
    """Name that its certificate has, if not the address's."""


class BuildkitBuilder:
    """Implements `ports.images.ImageBuilder` on a `buildkitd`, which keeps no images of its own.

    `cache`: repository that keeps layers for other and later servers. `folder`: where logins lie
    while a build runs.
    """

    name = "buildkit"
    has_mounts = True

    def __init__(
        self,
        server: BuildkitServer,
        logins: RegistryLogins,
        *,
        folder: Path,
        cache: str | None = None,
        program: str = "buildctl",
    ) -> None:
        self._server = server
        self._logins = logins
        self._folder = folder
        self._cache = cache
        self._program = program

    async def check(self) -> None:
        """Whether the server answers."""
        command = [*self._buildctl(), "debug", "workers"]
        try:
            await ask(command, environment=program_environment({}))
        except NotInstalled:
            raise
        except Unavailable as error:
            msg = (
                f"The buildkitd at {self._server.address} cannot be used: {error}"
                " Check its address and certificates."
            )
            raise Unavailable(msg) from error

    async def base_digest(self, image: str, *, platform: str | None) -> str | None:
        """Only the registry knows."""
        del image, platform
        return None

    async def build(self, build: ImageBuild, say: Say) -> None:
        """Make the image and push it."""
        if not build.push:
            raise build_failed(
                "buildkitd keeps no images, so that Docker cannot run what it makes: name a"
                " registry with `builder.destination`, or use the builder `docker`."
            )
        dockerfile = await dockerfile_of(build)
        cache = await anyio.to_thread.run_sync(self._cache_of, dockerfile)
        command = self._command(build, dockerfile, cache)
        async with open_output(build.log) as output:
            tries = PushTries()
            while True:
                logins = await self._logins_of(build)
                failure = await self._run(command, build, cache, say, output)
                if failure is None:
                    return
                error = build_error(failure, builder="buildkitd", image=build.image)
                if not is_push(failure):
                    raise error
                # All that was built is in the server's cache: the same again is only the push.
                renewed = is_denied(failure) and await self._logins_of(build) != logins
                await tries.after(error, renewed=renewed)

    async def _logins_of(self, build: ImageBuild) -> list[RegistryLogin | None]:
        return [await self._logins.login(image) for image in images_of(build)]

    async def _run(
        self,
        command: list[str],
        build: ImageBuild,
        cache: ImageRef | None,
        say: Say,
        output: Output,
    ) -> Failure | None:
        steps = PlainSteps(say)
        images = (*images_of(build), *bases_of(build), *([cache] if cache else []))
        async with docker_config_folder(self._folder, self._logins, images) as config:
            code = await run_build(
                command,
                environment=program_environment({"DOCKER_CONFIG": str(config)}),
                output=output,
                steps=steps,
            )
        return steps.failure(f"buildctl ended with {code}") if code else None

    def _buildctl(self) -> list[str]:
        server = self._server
        given: Mapping[str, Path | str | None] = {
            "--tlscacert": server.ca,
            "--tlscert": server.certificate,
            "--tlskey": server.key,
            "--tlsservername": server.server_name,
        }
        options = [f"{name}={value}" for name, value in given.items() if value is not None]
        return [self._program, f"--addr={server.address}", *options]

    def _command(self, build: ImageBuild, dockerfile: Path, cache: ImageRef | None) -> list[str]:
        context, file = str(build.context.absolute()), str(dockerfile.absolute())
        words = build_words(build, context=context, dockerfile=file, cache=cache)
        return [*self._buildctl(), "build", *words]

    def _cache_of(self, dockerfile: Path) -> ImageRef | None:
        return None if self._cache is None else cache_of(self._cache, dockerfile)
