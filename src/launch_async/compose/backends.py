"""The targets that an agent serves: who prepares and who runs what a resource type names."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio

from launch_async.adapters.builders.environments import EnvironmentBuilder
from launch_async.adapters.builders.images import ReadyImages
from launch_async.adapters.runners.docker.runner import DockerRunner
from launch_async.adapters.runners.process.runner import ProcessRunner
from launch_async.agent.slots import Slotted
from launch_async.agent.tools import Target
from launch_async.compose.plugins import plugin_targets
from launch_async.kit.keep import Keep
from launch_async.ports.jobs import JobStore


@asynccontextmanager
async def open_targets(
    state_dir: Path, jobs: JobStore, *, keep: Keep, slots: anyio.CapacityLimiter
) -> AsyncGenerator[Mapping[str, Target], None]:
    """Targets by resource type, in W&B's words; what they hold open is closed at the end."""
    async with AsyncExitStack() as stack:
        docker, process = DockerRunner(), ProcessRunner(state_dir)
        stack.push_async_callback(docker.close)
        stack.push_async_callback(process.close)
        builder = EnvironmentBuilder(state_dir, jobs, keep=keep)
        ours = {
            "local-process": Target(runner=process, builder=Slotted(builder, slots)),
            "local-container": Target(runner=docker, builder=ReadyImages()),
        }
        yield {**plugin_targets(state_dir, jobs, slots=slots, taken=ours), **ours}
