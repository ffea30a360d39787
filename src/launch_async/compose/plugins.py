"""Runners and builders of other packages, by entry points; nothing of theirs is imported unasked.

```toml
[project.entry-points."launch_async.runners"]     # resource type = "module:factory"
local-folder = "launch_folder:FolderRunner"       # factory(folder: Path) -> Runner
[project.entry-points."launch_async.builders"]    # of the same name; without one: ready images
local-folder = "launch_folder:open_builder"       # factory(folder: Path, jobs: JobStore) -> Builder
[project.entry-points."launch_async.registries"]  # registry's host = "module:factory"
"registry.example" = "our_cloud:Logins"           # factory(folder: Path) -> RegistryLogins
```

`folder` is the plug-in's own, in the agent's state folder. A runner closes what it holds open when
its `serve` is cancelled.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
import structlog

from launch_async.adapters.builders.images import ReadyImages
from launch_async.agent.slots import Slotted
from launch_async.agent.tools import Target
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.image import ImageRef
from launch_async.domain.item import Item
from launch_async.domain.run import FoundRun, RunHandle, RunStatus
from launch_async.kit.names import plain_name
from launch_async.ports.build import Builder, BuildOrder
from launch_async.ports.images import RegistryLogin, RegistryLogins
from launch_async.ports.jobs import JobStore
from launch_async.ports.runner import LaunchOrder, Runner, Work

RUNNERS = "launch_async.runners"
BUILDERS = "launch_async.builders"
REGISTRIES = "launch_async.registries"

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def plugin_targets(
    state_dir: Path, jobs: JobStore, *, slots: anyio.CapacityLimiter, taken: Collection[str]
) -> dict[str, Target]:
    """Targets by resource type, as installed packages declare them; `taken` ones are ours."""
    builders = {point.name: point for point in entry_points(group=BUILDERS)}
    targets: dict[str, Target] = {}
    for point in entry_points(group=RUNNERS):
        if point.name in taken or point.name in targets:
            log.error("plug-in ignored: its resource type is taken", plugin=_named(point))
            continue
        folder = state_dir / "plugins" / plain_name(point.name)
        builder: Builder = ReadyImages()
        if point.name in builders:
            builder = Slotted(LazyBuilder(Loaded(builders[point.name], folder, jobs)), slots)
        targets[point.name] = Target(runner=LazyRunner(Loaded(point, folder)), builder=builder)
    return targets


def plugin_logins(state_dir: Path) -> list[RegistryLogins]:
    """Logins of registries, as installed packages declare them by the registries' hosts."""
    return [
        LazyLogins(Loaded(point, state_dir / "plugins" / plain_name(point.name)))
        for point in entry_points(group=REGISTRIES)
    ]


class Loaded(Generic[T]):
    """What an entry point's factory makes, made at the first use."""

    def __init__(self, point: EntryPoint, folder: Path, *arguments: Any) -> None:
        self.point = point
        self.folder = folder
        self.needed = anyio.Event()
        self._arguments = arguments
        self._lock = anyio.Lock()
        self._made: T | None = None
        self._fault: ItemError | None = None

    async def get(self) -> T:
        """Import and make it, once.

        Raises:
            ItemError: the package is broken; said in the log once, and to each item that needs it.
        """
        async with self._lock:
            if self._fault is not None:
                raise self._fault
            if self._made is None:
                self._made = await anyio.to_thread.run_sync(self._make)
                self.needed.set()
            return self._made

    def _make(self) -> T:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            factory: Callable[..., T] = self.point.load()
            return factory(self.folder, *self._arguments)
        except Exception as error:  # somebody else's code: whatever it raises is its fault
            self._fault = ItemError(
                f"The plug-in {_named(self.point)} cannot be used"
                f" ({type(error).__name__}: {error}): mend, upgrade or uninstall it.",
                reason=Reason.TARGET_UNSUPPORTED,
            )
            log.exception("plug-in cannot be used", plugin=_named(self.point))
            raise self._fault from error


class LazyLogins:
    """`RegistryLogins` of one registry, loaded when an image of it is needed."""

    def __init__(self, logins: Loaded[RegistryLogins]) -> None:
        self._logins = logins

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        """As the plug-in's; None for other registries."""
        if image.host != self._logins.point.name:
            return None
        return await (await self._logins.get()).login(image)


class LazyRunner:
    """A `Runner` that is loaded when an item needs it; each verb is the other one's."""

    def __init__(self, runner: Loaded[Runner]) -> None:
        self._runner = runner
        self._was_used = runner.folder.is_dir()

    @property
    def name(self) -> str:
        """The resource type."""
        return self._runner.point.name

    async def check(self) -> None:
        """As the plug-in's."""
        await (await self._runner.get()).check()

    async def launch(self, order: LaunchOrder) -> RunHandle:
        """As the plug-in's."""
        return await (await self._runner.get()).launch(order)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        """As the plug-in's."""
        async with aclosing((await self._runner.get()).watch(handle)) as statuses:
            async for status in statuses:
                yield status

    async def cancel(self, handle: RunHandle, *, within_seconds: float) -> None:
        """As the plug-in's."""
        await (await self._runner.get()).cancel(handle, within_seconds=within_seconds)

    async def log_tail(self, handle: RunHandle, *, lines: int) -> tuple[str, ...]:
        """As the plug-in's."""
        return await (await self._runner.get()).log_tail(handle, lines=lines)

    async def logs(self, handle: RunHandle) -> AsyncGenerator[bytes, None]:
        """As the plug-in's."""
        async with aclosing((await self._runner.get()).logs(handle)) as pieces:
            async for piece in pieces:
                yield piece

    async def find(self, identity: str) -> Sequence[FoundRun]:
        """As the plug-in's, if it was ever used here."""
        if not self._was_used and not self._runner.needed.is_set():
            return ()
        return await (await self._runner.get()).find(identity)

    async def remove(self, handle: RunHandle) -> None:
        """As the plug-in's."""
        await (await self._runner.get()).remove(handle)

    async def serve(self) -> None:
        """As the plug-in's, from its first use on."""
        await self._runner.needed.wait()
        await (await self._runner.get()).serve()


class LazyBuilder:
    """A `Builder` that is loaded when an item needs it."""

    def __init__(self, builder: Loaded[Builder]) -> None:
        self._builder = builder

    async def build(self, order: BuildOrder) -> Work:
        """As the plug-in's."""
        return await (await self._builder.get()).build(order)

    async def discard(self, item: Item) -> None:
        """As the plug-in's; what was never loaded has made nothing."""
        if self._builder.needed.is_set():
            await (await self._builder.get()).discard(item)


def _named(point: EntryPoint) -> str:
    package = f" of {point.dist.name}" if point.dist is not None else ""
    return f"{point.name}{package}"
