"""An `ImageMaker` between fakes at its ports: a builder that does what it is told, and stores."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.ids import ItemId, QueueRef, RunId
from launch_async.domain.image import ImageRef
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, Job
from launch_async.domain.spec import RunSpec
from launch_async.images.maker import ImageMaker
from launch_async.images.settings import ImageSettings
from launch_async.kit.clock import unix_now
from launch_async.kit.keep import Keep
from launch_async.ports.build import BuildOrder
from launch_async.ports.images import ImageBuild, Say
from launch_async.ports.jobs import Code
from launch_async.ports.runner import ImageWork

ROOMY = Keep(max_age_seconds=1e9, max_bytes=10**9)
FILES = {"Dockerfile": "FROM base\n", "train.py": "print(1)\n"}


class Store:
    """Implements `ports.images.ImageStore` for images and bases that are told to it."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.asked: list[str] = []
        self.fault: Exception | None = None

    async def find(self, image: ImageRef) -> str | None:
        self.asked.append(str(image))
        await anyio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        return self.digests.get(str(image))


class FakeBuilder:
    """Implements `ports.images.ImageBuilder`: notes what it is given, waits, fails or makes it."""

    name = "fake"
    has_mounts = False

    def __init__(self, store: Store) -> None:
        self.orders: list[ImageBuild] = []
        self.contexts: list[Mapping[str, str]] = []
        """What each build found in its context, at its end."""
        self.checks = 0
        self.begun = anyio.Event()
        self.may_end = anyio.Event()
        self.may_end.set()
        self.lingers = anyio.Event()
        """A cancelled build ends once this is set."""
        self.lingers.set()
        self.fault: Exception | None = None
        self.prints = "all of it\n"
        self._store = store

    async def check(self) -> None:
        self.checks += 1
        await anyio.lowlevel.checkpoint()

    async def base_digest(self, image: str, *, platform: str | None) -> str | None:
        await anyio.lowlevel.checkpoint()
        return None

    async def build(self, build: ImageBuild, say: Say) -> None:
        self.orders.append(build)
        build.log.write_text(self.prints)
        say("step 1/1")
        self.begun.set()
        try:
            await self.may_end.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self.lingers.wait()
        self.contexts.append(contents(build.context))
        if self.fault is not None:
            raise self.fault
        self._store.digests[build.image] = "sha256:made"


class Hearer:
    """Implements `ports.build.Progress`."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.log: Path | None = None

    def say(self, detail: str) -> None:
        self.said.append(detail)

    def keep_log(self, path: Path) -> None:
        self.log = path


class Codes:
    """Implements `ports.jobs.CodeStore` over folders that are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uses = 0

    @asynccontextmanager
    async def code(self, source: ArtifactSource | GitSource) -> AsyncGenerator[Code]:
        assert isinstance(source, ArtifactSource)
        self.uses += 1
        try:
            yield Code(folder=self.folder / source.artifact_id, key=source.artifact_id)
        finally:
            self.uses -= 1


class Site:
    """One maker, its builder and its stores."""

    def __init__(self, folder: Path, *, builds: bool = True, **settings: object) -> None:
        self.store = Store()
        self.bases = Store()
        self.builder = FakeBuilder(self.store)
        self.codes = Codes(folder / "code")
        self.folder = folder / "builds"
        self.unready: Exception | None = None
        self.slots = anyio.CapacityLimiter(2)
        self.maker = ImageMaker(
            code=self.codes,
            builder=self.builder if builds else None,
            stores=[self.store],
            bases=self.bases,
            ready=self._ready,
            folder=self.folder,
            settings=ImageSettings(**settings),
            slots=self.slots,
            keep=ROOMY,
        )
        self.write("A")

    async def _ready(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.unready is not None:
            raise self.unready

    def write(self, artifact: str, files: Mapping[str, str] = FILES) -> None:
        for path, text in files.items():
            target = self.codes.folder / artifact / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    def order(
        self, artifact: str = "A", hearer: Hearer | None = None, **more: object
    ) -> BuildOrder:
        """Of a job with a Dockerfile of its own, popped just now."""
        facts = {
            "source": ArtifactSource(artifact),
            "entrypoint": ("python", "train.py"),
            "ref": f"e/p/{artifact}:v0",
            "dockerfile": "Dockerfile",
        }
        popped_at = float(str(more.pop("popped_at", unix_now())))
        run = RunId(str(more.pop("run", "run")))
        item = Item(
            id=ItemId(f"item-{run}"),
            queue=QueueRef("e", "p", "q"),
            run_id=run,
            spec=RunSpec(entity="e", project="p", job="e/p/a:v0"),
            popped_at=popped_at,
        )
        return BuildOrder(
            item=item,
            job=Job(**(facts | more)),
            entrypoint=("python", "train.py"),
            progress=hearer or Hearer(),
        )

    async def build(self, order: BuildOrder | None = None) -> ImageWork:
        work = await self.maker.build(order or self.order())
        assert isinstance(work, ImageWork)
        return work

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.maker.serve)
            yield
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def site_in(folder: Path, *, builds: bool = True, **settings: object) -> AsyncGenerator[Site]:
    site = Site(folder, builds=builds, **settings)
    async with site.serving():
        yield site


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def failure(words: str = "Step 1 failed") -> ItemError:
    return ItemError(words, reason=Reason.BUILD_FAILED, stage=Stage.BUILD)


async def until(condition: Callable[[], object], *, within_seconds: float = 5) -> None:
    """What worker threads do can only be looked at."""
    with anyio.fail_after(within_seconds):
        while not condition():
            await anyio.sleep(0.005)
