"""From a code or git job to an image that can be launched, built once for all who want it.

```
code -> recipe -> scan -> tag ──> found in a store ───────────────> ImageWork
                            └──> a flight of this tag: stage -> build -> push ──┘
```

The same content has the same tag, whatever job, version or item it comes from. Who asks while a
build is under way waits for it; when the last one leaves, the build ends.
"""

import errno
import math
import shutil
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.ids import RunId
from launch_async.domain.image import MADE_LABEL, ImageRef
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, ImageSource
from launch_async.images.dependencies import missing_packages
from launch_async.images.ignore import Ignore
from launch_async.images.mounted import mounted
from launch_async.images.recipe import Recipe, RecipeOrder, recipe_of
from launch_async.images.settings import (
    LOCAL_REPOSITORY,
    ImageSettings,
    builder_block,
    checked_reference,
)
from launch_async.images.staging import DOCKERFILE, Scanned, scan, stage
from launch_async.images.tags import ImageFacts, tag_of, wandb_tag
from launch_async.kit.clock import unix_now
from launch_async.kit.failures import Failures
from launch_async.kit.flights import Flights
from launch_async.kit.keep import Keep, Kept, beyond
from launch_async.ports.build import BuildOrder, Progress
from launch_async.ports.images import ImageBuild, ImageBuilder, ImageStore
from launch_async.ports.jobs import Code, CodeStore
from launch_async.ports.retention import Pruned
from launch_async.ports.runner import ImageWork, Work

_PLANS = 1000
_BASE_SECONDS = 60.0
"""How long what a registry says of a base image is believed."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One image, before anybody knows whether it must be built."""

    source: ArtifactSource | GitSource
    recipe: Recipe
    scanned: Scanned
    tag: str
    image: ImageRef
    more_images: tuple[str, ...]


class ImageMaker:
    """Implements `ports.build.Builder` for targets that run images."""

    def __init__(
        self,
        *,
        code: CodeStore,
        builder: ImageBuilder | None,
        stores: Sequence[ImageStore],
        bases: ImageStore,
        folder: Path,
        settings: ImageSettings,
        slots: anyio.CapacityLimiter,
        keep: Keep,
    ) -> None:
        """`builder` None: nothing is built, code runs in a base image. `stores` are where images
        are looked for, and `bases` where their bases come from; `folder` is its own.
        """
        self._code = code
        self._builder = builder
        self._stores = stores
        self._bases = bases
        self._folder = folder
        self._settings = settings
        self._slots = slots
        self._keep = keep
        self._flights = Flights[None]("builds")
        self._failures = Failures()
        self._heard: defaultdict[str, list[Progress]] = defaultdict(list)
        self._scans: OrderedDict[tuple[str, str], Scanned] = OrderedDict()
        self._known_bases: dict[str, tuple[float, str | None]] = {}

    async def serve(self) -> None:
        """Own the builds, until cancelled."""
        staged = self._folder / "staged"
        await anyio.to_thread.run_sync(partial(shutil.rmtree, staged, ignore_errors=True))
        await self._flights.run()

    async def build(self, order: BuildOrder) -> Work:
        """The job's image, found or made; code with a base image that needs no build."""
        source = order.job.source
        if isinstance(source, ImageSource):
            return ImageWork(
                image=checked_reference(source.image, "The job's image"),
                entrypoint=order.entrypoint,
            )
        order.progress.say("fetching the code")
        async with self._code.code(source) as code:
            if self._builder is None or order.job.base_image:
                return await anyio.to_thread.run_sync(mounted, order, code, self._settings)
            return await self._image(order, source, code, self._builder)

    async def discard(self, item: Item) -> None:
        """Nothing was made for one item alone."""

    async def prune(self, open_runs: Set[RunId]) -> Pruned:
        """Remove old logs and notes of builds."""
        del open_runs
        return await anyio.to_thread.run_sync(_cut, self._folder / "logs", self._keep)

    async def _image(
        self,
        order: BuildOrder,
        source: ArtifactSource | GitSource,
        code: Code,
        builder: ImageBuilder,
    ) -> Work:
        await builder.check()
        plan = await self._plan(order, source, code, builder)
        order.progress.say(f"looking for the image {plan.image}")
        if not await self._is_there(plan):
            failure = self._failures.since(plan.tag, asked_at=order.item.popped_at)
            if failure is not None:
                order.progress.keep_log(self._log(plan.tag))
                raise failure
            await self._wait_for(plan, order.progress, builder)
        noted = await anyio.to_thread.run_sync(self._noted, plan.tag)
        return ImageWork(
            image=str(plan.image),
            entrypoint=plan.recipe.entrypoint,
            warnings=(*plan.recipe.warnings, *noted),
        )

    async def _plan(
        self,
        order: BuildOrder,
        source: ArtifactSource | GitSource,
        code: Code,
        builder: ImageBuilder,
    ) -> Plan:
        job, spec, settings = order.job, order.item.spec, self._settings
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
                has_mounts=builder.has_mounts,
                user=settings.user,
                uid=settings.uid,
                install_with=settings.install_with,
                base_image=settings.base_image,
                build_args=settings.build_args,
            ),
        )
        scanned = await self._scan(code, recipe)
        bases = [(base, await self._base(base, builder)) for base in recipe.bases]
        facts = ImageFacts(
            context=scanned.digest,
            dockerfile=recipe.dockerfile,
            bases=bases,
            platform=settings.platform,
            target=None,
            build_args=settings.build_args,
            has_mounts=builder.has_mounts,
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

    async def _scan(self, code: Code, recipe: Recipe) -> Scanned:
        """Remembered: a hundred items of one job read its files once."""
        ways = msgspec.json.encode([str(recipe.context), recipe.ignore, recipe.extra_files])
        key = (code.key, ways.decode())
        if key not in self._scans:
            includes = Ignore(recipe.ignore).includes
            look = partial(scan, recipe.context, includes=includes, extra_files=recipe.extra_files)
            self._scans[key] = await anyio.to_thread.run_sync(look)
            while len(self._scans) > _PLANS:
                self._scans.popitem(last=False)
        self._scans.move_to_end(key)
        return self._scans[key]

    async def _base(self, image: str, builder: ImageBuilder) -> str | None:
        """What the base is now: where it is built, else in its registry; None: nobody can say."""
        here = await builder.base_digest(image, platform=self._settings.platform)
        if here is not None:
            return here
        now = anyio.current_time()
        asked_at, known = self._known_bases.get(image, (-math.inf, None))
        if now - asked_at < _BASE_SECONDS:
            return known
        try:
            found = await self._bases.find(ImageRef.parse(image))
        except (ItemError, Unavailable, ValueError) as error:  # the build will say it better
            log.debug("base image not looked up", image=image, reason=str(error))
            found = None
        if len(self._known_bases) >= _PLANS:
            self._known_bases.clear()
        self._known_bases[image] = (now, found)
        return found

    async def _is_there(self, plan: Plan) -> bool:
        for store in self._stores:
            if await store.find(plan.image) is not None:
                return True
        return False

    async def _wait_for(self, plan: Plan, progress: Progress, builder: ImageBuilder) -> None:
        heard = self._heard[plan.tag]
        heard.append(progress)
        progress.keep_log(self._log(plan.tag))
        progress.say("waiting for a build slot")
        try:
            await self._flights.get(plan.tag, partial(self._make, plan, builder))
        finally:
            heard.remove(progress)
            if not heard:
                self._heard.pop(plan.tag, None)

    async def _make(self, plan: Plan, builder: ImageBuilder) -> None:
        """One build; it belongs to all who wait for its tag."""
        async with self._slots, self._code.code(plan.source):
            if await self._is_there(plan):  # another agent was quicker
                return
            try:
                with anyio.fail_after(self._settings.timeout_seconds):
                    await self._build(plan, builder)
            except TimeoutError as error:
                failure = ItemError(
                    f"The build took longer than {self._settings.timeout_seconds:.0f} s"
                    " (`builder.timeout`).",
                    reason=Reason.BUILD_FAILED,
                    stage=Stage.BUILD,
                )
                self._failures.add(plan.tag, failure)
                raise failure from error
            except ItemError as error:
                self._failures.add(plan.tag, error)
                raise

    async def _build(self, plan: Plan, builder: ImageBuilder) -> None:
        say = self._say(plan.tag)
        say("staging the build context")
        folder, output = self._folder / "staged" / plan.tag, self._log(plan.tag)
        log.info("image is built", image=str(plan.image), bytes=plan.scanned.size)
        try:
            await anyio.to_thread.run_sync(_stage, plan, folder, output)
            say("building")
            await builder.build(
                ImageBuild(
                    context=folder,
                    dockerfile=DOCKERFILE,
                    image=str(plan.image),
                    more_images=plan.more_images,
                    platform=self._settings.platform,
                    build_args=self._settings.build_args,
                    labels={MADE_LABEL: plan.tag},
                    push=self._settings.destination is not None,
                    log=output,
                ),
                say,
            )
            await anyio.to_thread.run_sync(self._note, plan.tag)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            msg = f"No room to build the image ({error.filename or self._folder}): free some."
            raise ItemError(msg, reason=Reason.BUILD_FAILED, stage=Stage.BUILD) from error
        finally:
            with anyio.CancelScope(shield=True):
                clear = partial(shutil.rmtree, folder, ignore_errors=True)
                await anyio.to_thread.run_sync(clear)
        log.info("image is ready", image=str(plan.image))

    def _say(self, tag: str) -> Callable[[str], None]:
        def say(detail: str) -> None:
            for progress in self._heard.get(tag, ()):
                progress.say(detail)

        return say

    def _log(self, tag: str) -> Path:
        return self._folder / "logs" / f"{tag}.log"

    def _note(self, tag: str) -> None:
        """What the build could not do is told to later items of this image too."""
        said = self._log(tag).read_text(encoding="utf-8", errors="replace")
        missing = missing_packages(said)
        if missing:
            note = f"packages that could not be installed: {', '.join(missing)}"
            self._log(tag).with_suffix(".note").write_text(note, encoding="utf-8")

    def _noted(self, tag: str) -> tuple[str, ...]:
        note = self._log(tag).with_suffix(".note")
        return (note.read_text(encoding="utf-8"),) if note.exists() else ()


def _stage(plan: Plan, folder: Path, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    stage(plan.scanned, plan.recipe.dockerfile, folder)


def _cut(folder: Path, keep: Keep) -> Pruned:
    found = [(path, path.stat()) for path in folder.glob("*")] if folder.is_dir() else []
    kept = [Kept(path=path, last_used=at.st_mtime, size=at.st_size) for path, at in found]
    gone = beyond(kept, keep, now=unix_now())
    for one in gone:
        one.path.unlink(missing_ok=True)
    return Pruned(len(gone), sum(one.size for one in gone))
