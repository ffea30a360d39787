"""Builds each image by a Job in a Kubernetes cluster; images go straight to their registry.

```
build -> context as a tar where pods can get it -> Job (or the one that an earlier life has made)
                                                  |  its log: build.log, steps, why it failed
         context removed <- Job removed <---------+
```
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from launch_async.adapters.builders.cluster.contexts import Contexts
from launch_async.adapters.builders.cluster.executors import Executor
from launch_async.adapters.builders.cluster.job import (
    LOGINS_KEY,
    JobSettings,
    build_job,
    job_name,
)
from launch_async.adapters.builders.context import bases_of, dockerfile_of, images_of
from launch_async.adapters.builders.faults import build_error, build_failed, quoted
from launch_async.adapters.builders.output import open_output
from launch_async.adapters.builders.steps import Failure, Steps
from launch_async.domain.errors import LaunchError, Reason, Unavailable
from launch_async.domain.run import RunEnd
from launch_async.domain.secret import Secret
from launch_async.ports.cluster_jobs import ClusterJobs, SecretData
from launch_async.ports.images import ImageBuild, RegistryLogins, Say
from launch_async.wire.docker_config import auths_of

_SWEEP_MARGIN_SECONDS = 3600.0
_SILENT = "it said nothing"
_TAKEN_AWAY = frozenset({Reason.PREEMPTED, Reason.OUT_OF_DISK})
_NOBODYS_FAULT = frozenset({Reason.VANISHED, Reason.LAUNCH_FAILED, Reason.KILLED})


class ClusterBuilder:
    """Implements `ports.images.ImageBuilder`."""

    def __init__(
        self,
        jobs: ClusterJobs,
        executor: Executor,
        logins: RegistryLogins,
        *,
        contexts: Contexts,
        settings: JobSettings,
    ) -> None:
        self._jobs = jobs
        self._executor = executor
        self._logins = logins
        self._contexts = contexts
        self._settings = settings
        self._busy: dict[str, anyio.Event] = {}

    @property
    def name(self) -> str:
        """The executor's."""
        return self._executor.name

    @property
    def has_mounts(self) -> bool:
        """The executor's."""
        return self._executor.has_mounts

    async def clean(self) -> None:
        """Remove contexts that killed lives have left; at the start."""
        limit = self._settings.timeout_seconds + _SWEEP_MARGIN_SECONDS
        await self._contexts.sweep(self._settings.name_prefix, older_than_seconds=limit)

    async def check(self) -> None:
        """Whether the cluster answers and contexts can be brought to it."""
        await self._contexts.check()
        await self._jobs.check()

    async def base_digest(self, image: str, *, platform: str | None) -> str | None:
        """Only the registry knows."""
        del image, platform
        return None

    async def build(self, build: ImageBuild, say: Say) -> None:
        """Make the image and push it."""
        if not build.push:
            raise build_failed(
                "A build in the cluster leaves its image nowhere but in a registry: name one with"
                " `builder.destination`."
            )
        dockerfile = await dockerfile_of(build)
        steps = self._executor.steps(say)
        async with open_output(build.log) as output:

            async def feed(piece: bytes) -> None:
                await output.write(piece)
                steps.feed(piece)

            name = job_name(self._settings, executor=self.name, image=build.image)
            async with self._alone(name):
                secret = await self._secret(build)
                address = self._contexts.address(name)
                part = await anyio.to_thread.run_sync(
                    self._executor.part, build, dockerfile, address
                )
                folder = None if secret is None else self._executor.logins_folder
                job = build_job(
                    name,
                    part,
                    self._settings,
                    image=build.image,
                    context=self._contexts.mount(name),
                    own_logins_folder=folder,
                )
                try:
                    end = await self._jobs.run(
                        job,
                        prepare=partial(self._contexts.write, name, build.context),
                        secret=secret,
                        feed=feed,
                        say=say,
                    )
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._contexts.remove(name)
        if not end.clean:
            raise self._error(build, end, steps)

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncGenerator[None, None]:
        """One at a time: a build that was given up still clears away what has its name."""
        while (before := self._busy.get(name)) is not None:
            await before.wait()
        done = self._busy[name] = anyio.Event()
        try:
            yield
        finally:
            del self._busy[name]
            done.set()

    async def _secret(self, build: ImageBuild) -> SecretData | None:
        """None: others see to it, or no login is needed that we know of."""
        if not self._settings.own_logins:
            return None
        images = (*images_of(build), *bases_of(build))
        asked = [await auths_of(self._logins, images)]
        if not any(asked):
            return None

        async def logins() -> dict[str, Secret[str]]:
            auths = asked.pop() if asked else await auths_of(self._logins, images)
            return {LOGINS_KEY: Secret(msgspec.json.encode({"auths": auths}).decode())}

        return logins

    def _error(self, build: ImageBuild, end: RunEnd, steps: Steps) -> LaunchError:
        title = f"{self._executor.title} in the cluster"
        failure = steps.failure(_SILENT)
        said = failure.error != _SILENT
        if end.reason in _TAKEN_AWAY or (end.reason in _NOBODYS_FAULT and not said):
            return Unavailable(f"The cluster ended the build: {end.detail}.")
        if end.reason is Reason.RUN_TIMEOUT or (end.reason is not None and not said):
            return build_failed(f"The cluster ended the build: {end.detail}.")
        if said and end.exit_code == self._executor.not_begun_code is not None:
            return Unavailable(f"{title} does not work: {quoted(failure.error)}.")
        if not said:
            failure = Failure(step=None, error=f"{title} ended with {end.exit_code}")
        return build_error(failure, builder=title, image=build.image)
