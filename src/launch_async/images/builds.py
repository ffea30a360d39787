"""Builds under way: one for each tag, for all who wait for it.

```
asked -> (or join the build of this tag) -> slot -> is it there by now? -> stage -> build
         builds/staged/<life>/<n>          the context, gone after the build
         builds/logs/<tag>-<life>-<n>.log  all that the build printed
         builds/logs/<tag>.note            what the image does without
```
When the last one who waits leaves, the build ends.
"""

import errno
import itertools
import secrets
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec
import structlog

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.image import MADE_LABEL, ImageRef
from launch_async.domain.job import ArtifactSource, GitSource
from launch_async.images.notes import write_note
from launch_async.images.recipe import Recipe
from launch_async.images.settings import ImageSettings
from launch_async.images.staging import DOCKERFILE, Scanned, stage
from launch_async.kit.failures import Failures
from launch_async.kit.flights import Flights
from launch_async.ports.build import Progress
from launch_async.ports.images import ImageBuild, ImageBuilder
from launch_async.ports.jobs import CodeStore

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One image, before anybody knows whether it must be built."""

    source: ArtifactSource | GitSource
    recipe: Recipe
    scanned: Scanned
    tag: str
    image: ImageRef
    more_images: tuple[str, ...]


class BuildFailed(ItemError):
    """A build that failed, and where all that it printed is."""

    def __init__(self, message: str, *, reason: Reason, printed: Path) -> None:
        super().__init__(message, reason=reason, stage=Stage.BUILD)
        self.printed = printed


class Builds:
    """Makes images. Errors are those of `ports.images.ImageBuilder`."""

    def __init__(
        self,
        builder: ImageBuilder,
        *,
        code: CodeStore,
        is_there: Callable[[Plan], Awaitable[bool]],
        ready: Callable[[], Awaitable[None]],
        folder: Path,
        settings: ImageSettings,
        slots: anyio.CapacityLimiter,
    ) -> None:
        """`is_there` looks for the image once more when its turn has come; `ready` raises
        `Unavailable` when nothing should be built now, such as for want of room.
        """
        self._builder = builder
        self._code = code
        self._is_there = is_there
        self._ready = ready
        self._staged = folder / "staged"
        self._logs = folder / "logs"
        self._settings = settings
        self._slots = slots
        self._life = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._flights = Flights[None]("builds")
        self._under_way: dict[str, _Build] = {}
        self._failures = Failures()

    async def serve(self) -> None:
        """Own the builds, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._flights.run, name="builds")
            await anyio.to_thread.run_sync(self._clear_leftovers)

    async def make(self, plan: Plan, progress: Progress, *, asked_at: float) -> None:
        """Return when the image is there; `progress` hears how it goes, and gets the log.

        Who asked (in Unix time) before the last build of it failed has asked for that one, and is
        told the same.
        """
        try:
            failed = self._failures.since(plan.tag, asked_at=asked_at)
            if failed is not None:
                raise failed
            await self._join(plan, progress)
        except BuildFailed as error:
            progress.keep_log(error.printed)
            raise

    async def _join(self, plan: Plan, progress: Progress) -> None:
        build = self._under_way.get(plan.tag)
        if build is None:
            number = next(self._numbers)
            build = self._under_way[plan.tag] = _Build(
                staged=self._staged / self._life / str(number),
                printed=self._logs / f"{plan.tag}-{self._life}-{number}.log",
            )
        build.join(progress)
        try:
            await self._flights.get(plan.tag, partial(self._in_turn, plan, build))
        finally:
            build.listeners.remove(progress)
            if not build.listeners:
                self._over(plan.tag, build)

    def _over(self, tag: str, build: "_Build") -> None:
        if self._under_way.get(tag) is build:
            del self._under_way[tag]

    async def _in_turn(self, plan: Plan, build: "_Build") -> None:
        """One build; it belongs to all who wait for its tag."""
        if build.listeners:  # it may have been cut off, and begin anew
            self._under_way[plan.tag] = build
        try:
            async with self._slots, self._code.code(plan.source):
                if not await self._is_there(plan):  # nobody was quicker
                    await self._ready()
                    await self._in_time(plan, build)
        except BuildFailed as error:
            log.warning("image is not built", image=str(plan.image), reason=error.reason)
            # Another one: what is raised holds on to all that it passed through.
            told = BuildFailed(str(error), reason=error.reason, printed=error.printed)
            self._failures.add(plan.tag, told)
            raise
        finally:
            self._over(plan.tag, build)

    async def _in_time(self, plan: Plan, build: "_Build") -> None:
        limit = self._settings.timeout_seconds
        try:
            with anyio.move_on_after(limit) as patience:
                await self._make(plan, build)
        except ItemError as error:
            raise BuildFailed(str(error), reason=error.reason, printed=build.printed) from error
        if patience.cancelled_caught:
            msg = f"The build took longer than {limit:g} s (`builder.timeout`): {build.said}."
            raise BuildFailed(msg, reason=Reason.BUILD_FAILED, printed=build.printed)

    async def _make(self, plan: Plan, build: "_Build") -> None:
        build.say("staging the build context")
        log.info("image build started", image=str(plan.image), bytes=plan.scanned.size)
        try:
            await anyio.to_thread.run_sync(_stage, plan, build)
            build.say("building")
            await self._builder.build(self._order(plan, build), build.say)
            if plan.recipe.generated:
                note = self._logs / f"{plan.tag}.note"
                await anyio.to_thread.run_sync(write_note, build.printed, note)
        except OSError as error:
            raise _cannot(error, build.staged) from error
        finally:
            with anyio.CancelScope(shield=True):
                clear = partial(shutil.rmtree, build.staged, ignore_errors=True)
                await anyio.to_thread.run_sync(clear)
        log.info("image is ready", image=str(plan.image))

    def _order(self, plan: Plan, build: "_Build") -> ImageBuild:
        return ImageBuild(
            context=build.staged,
            dockerfile=DOCKERFILE,
            image=str(plan.image),
            more_images=plan.more_images,
            bases=plan.recipe.bases,
            platform=self._settings.platform,
            build_args=self._settings.build_args,
            labels={MADE_LABEL: plan.tag},
            push=self._settings.destination is not None,
            log=build.printed,
        )

    def _clear_leftovers(self) -> None:
        """Contexts of lives that were killed; this one may be building already."""
        for path in self._staged.glob("*"):
            if path.name != self._life:
                shutil.rmtree(path, ignore_errors=True)


class _Build:
    """One build, and who hears of it."""

    def __init__(self, *, staged: Path, printed: Path) -> None:
        self.staged = staged
        self.printed = printed
        self.said = "waiting for a build slot"
        self.listeners: list[Progress] = []

    def join(self, progress: Progress) -> None:
        """Who comes later hears at once how far it is."""
        self.listeners.append(progress)
        progress.keep_log(self.printed)
        progress.say(self.said)

    def say(self, detail: str) -> None:
        self.said = detail
        for progress in self.listeners:
            progress.say(detail)


def _stage(plan: Plan, build: _Build) -> None:
    build.printed.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    stage(
        plan.scanned,
        plan.recipe.dockerfile,
        build.staged,
        checkpoint=anyio.from_thread.check_cancelled,
    )


def _cannot(error: OSError, folder: Path) -> ItemError:
    """A disk that is full, or a path too long, is this build's end, not the agent's."""
    if error.errno in _NO_ROOM:
        msg = f"The agent has no room to build the image ({folder}): free some there."
    else:
        where = f" ({str(error.filename)!r})" if error.filename else ""
        msg = f"The image cannot be built on the agent's machine: {error.strerror or error}{where}."
    return ItemError(msg, reason=Reason.BUILD_FAILED, stage=Stage.BUILD)
