"""How this agent makes images: the builder of its configuration, and where images are kept."""

import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel

from launch_async.adapters.builders.buildkit import BuildkitBuilder, BuildkitServer
from launch_async.adapters.builders.buildx import BuildxBuilder
from launch_async.adapters.builders.engine import EngineBuilder
from launch_async.adapters.builders.engine_images import EngineImages
from launch_async.config.images import BuilderSection
from launch_async.domain.errors import ConfigError, Unavailable
from launch_async.images.maker import ImageMaker
from launch_async.images.settings import ImageSettings
from launch_async.kit.keep import Keep
from launch_async.ports.images import (
    ImageBuild,
    ImageBuilder,
    ImageStore,
    RegistryLogins,
    Say,
)
from launch_async.ports.jobs import CodeStore
from launch_async.wire.docker import DockerConnection


def image_maker(
    section: BuilderSection,
    *,
    code: CodeStore,
    connection: DockerConnection,
    logins: RegistryLogins,
    registry: ImageStore,
    ready: Callable[[], Awaitable[None]],
    folder: Path,
    private: Path,
    slots: anyio.CapacityLimiter,
    keep: Keep,
    on_engine: bool = True,
    in_cluster: ImageBuilder | None = None,
) -> ImageMaker:
    """For targets that run images on the engine of `connection`, or elsewhere (`on_engine` False).

    `ready`: whether the engine is; `folder` is the maker's own, `private` for logins. `in_cluster`
    builds for `buildkit`, and for `kaniko` where no engine does.

    Raises:
        ConfigError: the section leaves out what its builder needs.
    """
    stores: Sequence[ImageStore] = [registry]
    if on_engine:
        pushes = section.destination is not None
        here = EngineImages(connection, platform=section.platform, pushed=pushes)
        stores = [here, registry] if pushes else [here]
    elif section.type in {"buildkit", "kaniko"}:
        ready = anyio.lowlevel.checkpoint
    if on_engine and section.type == "kaniko":
        in_cluster = None
    return ImageMaker(
        code=code,
        builder=in_cluster or builder_of(section, connection, logins, folder=private),
        runs_fetch=not on_engine,
        stores=stores,
        bases=registry,
        ready=ready,
        folder=folder,
        settings=settings_of(section),
        slots=slots,
        keep=keep,
    )


def settings_of(section: BuilderSection) -> ImageSettings:
    """The section as the flow that makes images wants it."""
    return ImageSettings(
        destination=section.destination,
        platform=section.platform,
        build_args=section.build_args,
        base_image=section.base_image,
        install_with=section.install_with,
        cache_mounts=section.cache_mounts,
        wandb_tags=section.wandb_tags,
        timeout_seconds=section.timeout,
    )


def builder_of(
    section: BuilderSection,
    connection: DockerConnection,
    logins: RegistryLogins,
    *,
    folder: Path,
) -> ImageBuilder | None:
    """What builds; None: nothing does, and code runs in a base image.

    Raises:
        ConfigError: as `image_maker`.
    """
    match section.type:
        case "noop":
            return None
        case "buildkit":
            return BuildkitBuilder(
                _buildkitd(section), logins, folder=folder, cache=section.cache or None
            )
        case "docker" | "kaniko" | None:  # with kaniko, only what Docker queues run
            engine = EngineBuilder(connection, logins)
            buildx = BuildxBuilder(connection, logins, folder=folder)
            match section.buildx:
                case "always":
                    return buildx
                case "never":
                    return engine
                case "auto":
                    return BuildxIfThere(buildx, engine)


def _buildkitd(section: BuilderSection) -> BuildkitServer:
    if not section.address:
        raise ConfigError(
            "builder.address is missing: write the buildkitd's, such as tcp://buildkitd:1234"
        )
    if not section.destination:
        raise ConfigError(
            "builder.destination is missing: a buildkitd keeps no images, so they must be pushed"
        )
    return BuildkitServer(
        address=section.address,
        ca=_file(section.tls_ca),
        certificate=_file(section.tls_cert),
        key=_file(section.tls_key),
        server_name=section.tls_server_name or None,
    )


def _file(path: str) -> Path | None:
    return Path(path).expanduser() if path else None


class BuildxIfThere:
    """Docker's own choice: `docker buildx` where it is installed, else the engine's builder.

    Looked for when something is built first: an agent without image jobs needs neither.
    """

    def __init__(self, buildx: ImageBuilder, engine: ImageBuilder) -> None:
        self._buildx = buildx
        self._engine = engine
        self._chosen: ImageBuilder | None = None

    @property
    def name(self) -> str:
        """The chosen one's."""
        return (self._chosen or self._engine).name

    @property
    def has_mounts(self) -> bool:
        """The chosen one's; False before `check`."""
        return self._chosen is not None and self._chosen.has_mounts

    async def check(self) -> None:
        """Choose, if that is not done, and ask the chosen one."""
        if self._chosen is None and shutil.which("docker") is not None:
            try:
                await self._buildx.check()
            except Unavailable:
                await self._engine.check()
                self._chosen = self._engine
            else:
                self._chosen = self._buildx
            return
        self._chosen = self._chosen or self._engine
        await self._chosen.check()

    async def build(self, build: ImageBuild, say: Say) -> None:
        """As the chosen one."""
        await (self._chosen or self._engine).build(build, say)

    async def base_digest(self, image: str, *, platform: str | None) -> str | None:
        """As the chosen one."""
        return await (self._chosen or self._engine).base_digest(image, platform=platform)
