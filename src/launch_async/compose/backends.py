"""The targets that an agent serves: who prepares and who runs what a resource type names."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import anyio
import anyio.to_thread

from launch_async.adapters.builders.environments import EnvironmentBuilder
from launch_async.adapters.registries.azure import AzureLogins
from launch_async.adapters.registries.chain import LoginChain
from launch_async.adapters.registries.client import OciRegistry
from launch_async.adapters.registries.docker_config import DockerConfigLogins
from launch_async.adapters.registries.ecr import EcrLogins
from launch_async.adapters.registries.google import GoogleLogins
from launch_async.adapters.registries.http import registry_session
from launch_async.adapters.registries.static import StaticLogin, StaticLogins
from launch_async.adapters.runners.docker.policy import DockerPolicy, VolumeRule
from launch_async.adapters.runners.docker.runner import DockerRunner
from launch_async.adapters.runners.process.runner import ProcessRunner
from launch_async.adapters.sources.cache import CodeCache
from launch_async.agent.slots import Slotted
from launch_async.agent.tools import Target
from launch_async.compose.cluster_builds import cluster_builds, is_in_cluster
from launch_async.compose.images import image_maker
from launch_async.compose.kubernetes import Pushed, connect_of, kubernetes_runner
from launch_async.compose.plugins import plugin_logins, plugin_targets
from launch_async.config.images import DockerSection, RegistryLoginConfig
from launch_async.config.model import LaunchConfig
from launch_async.domain.errors import ConfigError
from launch_async.kit.keep import Keep
from launch_async.ports.images import RegistryLogins
from launch_async.ports.jobs import JobStore
from launch_async.ports.retention import Prunable
from launch_async.wire.docker import DockerConnection
from launch_async.wire.docker_config import remove_left_folders

MEGABYTE = 10**6


class Backends(NamedTuple):
    """What the agent's targets consist of."""

    targets: Mapping[str, Target]
    """By resource type, in W&B's words."""
    services: Mapping[str, Callable[[], Awaitable[None]]]
    """Background work by name, each until cancelled."""
    stores: Mapping[str, Prunable]
    """What grows with time, by name."""


@asynccontextmanager
async def open_targets(
    config: LaunchConfig,
    jobs: JobStore,
    *,
    environ: Mapping[str, str],
    ca_file: Path | None,
    slots: anyio.CapacityLimiter,
    identity: str,
) -> AsyncGenerator[Backends, None]:
    """The targets of this configuration; what they hold open is closed at the end.

    `identity` is the agent's lasting one.

    Raises:
        ConfigError: a setting of builders, registries or Docker is wrong.
        AgentUnfit: `ca_file` is not a bundle of certificates.
    """
    state_dir, limits, building = config.state_dir, config.agent.retention, config.building()
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(registry_session(ca_file))
        await anyio.to_thread.run_sync(remove_left_folders, state_dir / "logins")
        logins = LoginChain(
            [
                *logins_of(config.agent.registries, environ, session),
                *plugin_logins(state_dir),
            ]
        )
        insecure = [one.host for one in config.agent.registries if one.insecure]
        registry = OciRegistry(session, logins, insecure_hosts=insecure)
        connection = DockerConnection(name="docker builds")
        stack.push_async_callback(connection.close)
        docker_limits = config.agent.docker
        docker = DockerRunner(
            policy=policy_of(docker_limits, environ),
            logins=logins,
            min_free_bytes=docker_limits.min_free_mb * MEGABYTE,
            shelf=(
                state_dir / "images",
                keep_of(docker_limits.images_days, docker_limits.images_mb),
            ),
        )
        process = ProcessRunner(state_dir)
        stack.push_async_callback(docker.close)
        stack.push_async_callback(process.close)
        code = CodeCache(state_dir, jobs, keep=keep_of(limits.code_days, limits.code_mb))
        environments = EnvironmentBuilder(
            state_dir, jobs, keep=keep_of(limits.environments_days, limits.environments_mb)
        )
        kubernetes = kubernetes_runner(
            config.agent.kubernetes,
            environ=environ,
            state_dir=state_dir,
            logins=logins,
            git=config.agent.git,
        )
        stack.push_async_callback(kubernetes.close)
        in_cluster = None
        if is_in_cluster(building):
            in_cluster = cluster_builds(
                building,
                connect_of(config.agent.kubernetes, environ),
                logins,
                environ=environ,
                identity=identity,
                insecure=insecure,
            )
            stack.push_async_callback(in_cluster.jobs.close)
        images, pushed = (
            image_maker(
                building,
                code=code,
                connection=connection,
                logins=logins,
                registry=registry,
                ready=docker.check,
                folder=state_dir / folder,
                private=state_dir / "logins",
                on_engine=on_engine,
                slots=slots,
                keep=keep_of(limits.build_logs_days, limits.build_logs_mb),
                in_cluster=in_cluster.builder if in_cluster else None,
            )
            for folder, on_engine in (("builds", True), ("pushed-builds", False))
        )
        ours = {
            "local-process": Target(runner=process, builder=Slotted(environments, slots)),
            "local-container": Target(runner=docker, builder=images),
            "kubernetes": Target(
                runner=kubernetes,
                builder=Pushed(
                    pushed,
                    destination=building.destination,
                    builds=building.type != "noop",
                ),
            ),
        }
        plugins = plugin_targets(state_dir, jobs, slots=slots, taken=ours)
        yield Backends(
            targets={**plugins, **ours},
            services={
                "code": code.serve,
                "image builds": images.serve,
                "pushed image builds": pushed.serve,
                **({"cluster builds": in_cluster.serve} if in_cluster else {}),
            },
            stores={
                "environments": environments,
                "code": code,
                "build logs": images,
                "pushed build logs": pushed,
                "images": docker,
            },
        )


def logins_of(
    registries: tuple[RegistryLoginConfig, ...],
    environ: Mapping[str, str],
    session: aiohttp.ClientSession,
) -> Sequence[RegistryLogins]:
    """The agent's own logins first, then those of its user's Docker, then those of the clouds."""
    own = [
        StaticLogin(
            host=one.host,
            username=one.username,
            password_env=one.password_env,
            password_file=one.password_file,
        )
        for one in registries
        if one.username
    ]
    # Their libraries are loaded when an image of their registries is asked for.
    clouds: list[RegistryLogins] = [EcrLogins(), GoogleLogins(), AzureLogins(session, environ)]
    return [StaticLogins(own, environ), DockerConfigLogins(environ), *clouds]


def policy_of(section: DockerSection, environ: Mapping[str, str]) -> DockerPolicy:
    """`agent.docker` as the runner wants it. Raises ConfigError for a folder that is none."""
    try:
        volumes = tuple(VolumeRule.parse(rule) for rule in section.volumes)
    except ValueError as error:
        msg = f"agent.docker.volumes: {error}"
        raise ConfigError(msg) from error
    return DockerPolicy(
        allow=frozenset(section.allow),
        volumes=volumes,
        networks=frozenset(section.networks),
        env=section.env,
        environ=environ,
        pull=section.pull,
    )


def keep_of(days: float, megabytes: int) -> Keep:
    """Limits of age and size, as settings say them."""
    return Keep(max_age_seconds=days * 86400, max_bytes=megabytes * MEGABYTE)
