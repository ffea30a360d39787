"""From a code or git job to an image that can be launched, built once for all who want it.

```
code -> recipe -> scan -> tag ──> found in a store ──────────────────────> ImageWork
                            └──> a build of this tag, for all who wait ──┘
```

The same content has the same tag, whatever job, version or item it comes from. Who asks while a
build is under way waits for it; when the last one leaves, the build ends (images/builds.py).
"""

from collections.abc import Awaitable, Callable, Sequence, Set
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.image import ImageRef
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, ImageSource
from launch_async.images.bases import Bases
from launch_async.images.builds import Builds, Plan
from launch_async.images.contexts import Contexts
from launch_async.images.mounted import fetched, mounted
from launch_async.images.notes import noted
from launch_async.images.recipe import RecipeOrder, recipe_of
from launch_async.images.settings import (
    LOCAL_REPOSITORY,
    ImageSettings,
    builder_block,
    checked_reference,
)
from launch_async.images.tags import ImageFacts, tag_of, wandb_tag
from launch_async.kit.clock import unix_now
from launch_async.kit.keep import Keep, Kept, beyond
from launch_async.kit.shared import Shared
from launch_async.ports.build import BuildOrder
from launch_async.ports.images import ImageBuilder, ImageStore
from launch_async.ports.jobs import Code, CodeStore
from launch_async.ports.retention import Pruned
from launch_async.ports.runner import ImageWork, Work

_CHECK_SECONDS = 30.0
"""How long a builder that could be used is believed to be so: asking may mean to start a program,
and items whose image is there do not need it."""


class _Held(NamedTuple):
    """Code that a run starts with."""

    item: ItemId
    use: AsyncExitStack


class ImageMaker:
    """Implements `ports.build.Builder` for targets that run images."""

    def __init__(
        self,
        *,
        code: CodeStore,
        builder: ImageBuilder | None,
        runs_fetch: bool = False,
        stores: Sequence[ImageStore],
        bases: ImageStore,
        ready: Callable[[], Awaitable[None]],
        folder: Path,
        settings: ImageSettings,
        slots: anyio.CapacityLimiter,
        keep: Keep,
    ) -> None:
        """`builder` None: nothing is built, code runs in a base image. `runs_fetch`: runs get such
        code by themselves, it is not needed here. `stores` are where images are looked for, and
        `bases` where their bases come from; `ready` raises `Unavailable` when nothing should be
        built now; `folder` is its own.
        """
        self._code = code
        self._runs_fetch = runs_fetch
        self._stores = stores
        self._folder = folder
        self._settings = settings
        self._keep = keep
        self._held: dict[RunId, _Held] = {}
        self._building: _Building | None = None
        if builder is not None:
            builds = Builds(
                builder,
                code=code,
                is_there=self._is_there,
                ready=ready,
                folder=folder,
                settings=settings,
                slots=slots,
            )
            self._building = _Building(
                builder, builds, Bases(builder, bases, platform=settings.platform)
            )

    async def serve(self) -> None:
        """Own the builds and all that is shared by items, until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                if self._building is not None:
                    tasks.start_soon(self._building.contexts.serve, name="context scans")
                    tasks.start_soon(self._building.bases.serve, name="base images")
                    tasks.start_soon(self._building.builds.serve, name="builds")
                await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for run_id in tuple(self._held):
                    await self._let_go(run_id)

    async def build(self, order: BuildOrder) -> Work:
        """The job's image, found or made; code with a base image that needs no build."""
        source = order.job.source
        if isinstance(source, ImageSource):
            return ImageWork(
                image=checked_reference(source.image, "The job's image"),
                entrypoint=order.entrypoint,
            )
        unbuilt = self._building is None or order.job.base_image
        if unbuilt and self._runs_fetch:
            return fetched(order, source, self._settings)
        order.progress.say("fetching the code")
        if self._building is None or order.job.base_image:
            return await self._mounted(order, source)
        async with self._code.code(source) as code:
            return await self._image(order, source, code, self._building)

    async def discard(self, item: Item) -> None:
        """Let go of the code of a run that never began."""
        held = self._held.get(item.run_id)
        if held is not None and held.item == item.id:
            await self._let_go(item.run_id)

    async def prune(self, open_runs: Set[RunId]) -> Pruned:
        """Remove old logs and notes of builds, and let go of the code of runs that are over."""
        for run_id in self._held.keys() - open_runs:
            await self._let_go(run_id)
        return await anyio.to_thread.run_sync(_cut, self._folder / "logs", self._keep)

    async def _mounted(self, order: BuildOrder, source: ArtifactSource | GitSource) -> ImageWork:
        """The code is held until the run is over: a pull may take hours before it is copied."""
        async with AsyncExitStack() as use:
            code = await use.enter_async_context(self._code.code(source))
            work = await anyio.to_thread.run_sync(mounted, order, code, self._settings)
            await self._let_go(order.item.run_id)  # an earlier try's
            self._held[order.item.run_id] = _Held(order.item.id, use.pop_all())
        return work

    async def _let_go(self, run_id: RunId) -> None:
        held = self._held.pop(run_id, None)
        if held is not None:
            await held.use.aclose()

    async def _image(
        self,
        order: BuildOrder,
        source: ArtifactSource | GitSource,
        code: Code,
        building: "_Building",
    ) -> Work:
        await building.check()
        plan = await self._plan(order, source, code, building)
        order.progress.say(f"looking for the image {plan.image}")
        if not await self._is_there(plan):
            await building.builds.make(plan, order.progress, asked_at=order.item.popped_at)
        note = self._folder / "logs" / f"{plan.tag}.note"
        return ImageWork(
            image=str(plan.image),
            entrypoint=plan.recipe.entrypoint,
            warnings=(*plan.recipe.warnings, *await anyio.to_thread.run_sync(noted, note)),
        )

    async def _plan(
        self,
        order: BuildOrder,
        source: ArtifactSource | GitSource,
        code: Code,
        building: "_Building",
    ) -> Plan:
        job, spec, settings = order.job, order.item.spec, self._settings
        has_mounts = building.builder.has_mounts and settings.cache_mounts
        recipe = await anyio.to_thread.run_sync(
            recipe_of,
            RecipeOrder(
                code=code.folder,
                entrypoint=order.entrypoint,
                overrides_entry_point=bool(spec.overrides.entry_point),
                dockerfile=spec.overrides.dockerfile,
                job_dockerfile=job.dockerfile,
                build_context=job.build_context,
                runtime=job.runtime,
                builder=builder_block(spec.resource_args),
                has_mounts=has_mounts,
                user=settings.user,
                uid=settings.uid,
                install_with=settings.install_with,
                base_image=settings.base_image,
                build_args=settings.build_args,
            ),
        )
        scanned = await building.contexts.scanned(code, recipe)
        bases = [(base, await building.bases.digest(base)) for base in recipe.bases]
        facts = ImageFacts(
            context=scanned.digest,
            dockerfile=recipe.dockerfile,
            bases=bases,
            platform=settings.platform,
            target=None,
            build_args=settings.build_args,
            has_mounts=has_mounts,
        )
        tag, repository = tag_of(facts), settings.destination or LOCAL_REPOSITORY
        older = wandb_tag(job=job.ref or "", dockerfile=recipe.dockerfile)
        return Plan(
            source=source,
            recipe=recipe,
            scanned=scanned,
            tag=tag,
            image=ImageRef.parse(f"{repository}:{tag}"),
            more_images=(f"{repository}:{older}",) if settings.wandb_tags else (),
        )

    async def _is_there(self, plan: Plan) -> bool:
        for store in self._stores:
            if await store.find(plan.image) is not None:
                return True
        return False


class _Building:
    """What is needed where images are built."""

    def __init__(self, builder: ImageBuilder, builds: Builds, bases: Bases) -> None:
        self.builder = builder
        self.builds = builds
        self.bases = bases
        self.contexts = Contexts()
        self._checks = Shared[None]()
        self._checked_until = 0.0

    async def check(self) -> None:
        """Ask the builder whether it can be used, once for all who want to know."""
        if anyio.current_time() >= self._checked_until:
            await self._checks.get(self.builder.check)
            self._checked_until = anyio.current_time() + _CHECK_SECONDS


def _cut(folder: Path, keep: Keep) -> Pruned:
    found = [(path, path.stat()) for path in folder.glob("*")] if folder.is_dir() else []
    kept = [Kept(path=path, last_used=at.st_mtime, size=at.st_size) for path, at in found]
    gone = beyond(kept, keep, now=unix_now())
    for one in gone:
        one.path.unlink(missing_ok=True)
    return Pruned(len(gone), sum(one.size for one in gone))
