"""Builds by `docker buildx build`: whatever Dockerfiles ask for, as on a developer's machine."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from launch_async.adapters.builders.context import bases_of, dockerfile_of, images_of
from launch_async.adapters.builders.engine import push_all
from launch_async.adapters.builders.engine_images import EngineImages
from launch_async.adapters.builders.faults import build_error
from launch_async.adapters.builders.output import Output, open_output
from launch_async.adapters.builders.programs import (
    NotInstalled,
    ask,
    program_environment,
    run_build,
)
from launch_async.adapters.builders.steps import PlainSteps
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.ports.images import ImageBuild, RegistryLogins, Say
from launch_async.wire.docker import DockerConnection
from launch_async.wire.docker_config import docker_config_folder, user_config_folder


class BuildxBuilder:
    """Implements `ports.images.ImageBuilder` with Docker's command line on the same engine.

    `folder`: where logins lie while a build runs. Pushes go over the engine's API, with a login
    that is asked for then: the build may have lasted longer than a token does.
    """

    name = "buildx"
    has_mounts = True

    def __init__(
        self,
        connection: DockerConnection,
        logins: RegistryLogins,
        *,
        folder: Path,
        program: str = "docker",
        user_folder: Path | None = None,
    ) -> None:
        self._host = connection.host
        self._logins = logins
        self._images = EngineImages(connection)
        self._folder = folder
        self._program = program
        self._user_folder = user_folder or user_config_folder(os.environ)

    async def check(self) -> None:
        """Whether Docker's command line has buildx."""
        command = [self._program, "buildx", "version"]
        try:
            await ask(command, environment=self._environment(self._user_folder))
        except NotInstalled:
            raise
        except Unavailable as error:
            msg = f"docker buildx cannot be used ({error}): install Docker's buildx plug-in."
            raise Unavailable(msg) from error

    async def base_digest(self, image: str, *, platform: str | None) -> str | None:
        """As the engine has it; None: it would be pulled."""
        with suppress(ValueError):
            return await self._images.digest(ImageRef.parse(image), platform=platform)
        return None

    async def build(self, build: ImageBuild, say: Say) -> None:
        """Make the image and load it into the engine; then push it if so ordered."""
        dockerfile = await dockerfile_of(build)
        async with open_output(build.log) as output:
            await self._make(build, dockerfile, say, output)
        await push_all(self._images, build, self._logins, say)

    async def _make(self, build: ImageBuild, dockerfile: Path, say: Say, output: Output) -> None:
        steps = PlainSteps(say)
        async with docker_config_folder(
            self._folder, self._logins, bases_of(build), like=self._user_folder
        ) as config:
            code = await run_build(
                self._command(build, dockerfile),
                environment=self._environment(config),
                output=output,
                steps=steps,
            )
        if code != 0:
            failure = steps.failure(f"docker buildx ended with {code}")
            raise build_error(failure, builder="The Docker engine", image=build.image)

    def _command(self, build: ImageBuild, dockerfile: Path) -> list[str]:
        command = [self._program, "buildx", "build", "--progress=plain", "--load"]
        command += [f"--file={dockerfile.absolute()}"]
        command += [f"--tag={image}" for image in images_of(build)]
        command += [f"--platform={build.platform}"] if build.platform else []
        command += [f"--target={build.target}"] if build.target else []
        command += [f"--build-arg={name}={value}" for name, value in build.build_args.items()]
        command += [f"--label={name}={value}" for name, value in build.labels.items()]
        return [*command, str(build.context.absolute())]

    def _environment(self, config: Path) -> Mapping[str, str]:
        return program_environment(
            {
                "DOCKER_CONFIG": str(config),
                "DOCKER_HOST": self._host,
                # An image as it is, not an index of it and a statement: some targets take no other.
                "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
            }
        )
