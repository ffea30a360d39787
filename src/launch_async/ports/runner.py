"""Verbs on one backend that runs things."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from launch_async.domain.ids import ItemId, QueueRef, RunRef
from launch_async.domain.job import ArtifactSource, GitSource
from launch_async.domain.run import FoundRun, Origin, RunHandle, RunStatus
from launch_async.domain.secret import Secret

CODE_DIRECTORY = "/mnt/wandb"
"""Where W&B's agent mounts the code of jobs that are not built (launch-features.md B9)."""


class FetchedCode(msgspec.Struct, frozen=True, kw_only=True):
    """A job's code that its run fetches itself before it begins."""

    source: ArtifactSource | GitSource
    installs: bool = False
    """Whether the run's entry point is one that `images/starting.py` has made: it installs what the
    code needs first."""
    working_dir: str = ""
    """Folder within the code where the run starts."""


class ImageWork(msgspec.Struct, frozen=True, kw_only=True):
    """A ready image. An empty `entrypoint` keeps the image's own."""

    image: str
    entrypoint: tuple[str, ...] = ()
    code: Path | None = None
    """Folder whose content the run gets at `CODE_DIRECTORY`, as a copy that it may write to, and
    where it starts; None: the image has all that it needs."""
    fetch: FetchedCode | None = None
    """In place of `code`, for targets that are elsewhere: what the run gets at `CODE_DIRECTORY`."""
    warnings: tuple[str, ...] = ()
    """What the item's user should know of how it was made."""


class CodeWork(msgspec.Struct, frozen=True, kw_only=True):
    """Code in a folder of its own with the environment that runs it, on this machine."""

    directory: Path
    """The run's own working copy; the process starts in it and may write to it."""
    bin_directory: Path
    """Folder that is first in the run's PATH, holding `python`."""
    entrypoint: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """As `ImageWork.warnings`."""


Work = ImageWork | CodeWork


class LaunchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a backend needs to start one run."""

    origin: Origin
    """Kept by the backend beside the run (labels, a record), and given back whole by `find`."""
    work: Work
    args: tuple[str, ...]
    environment: Mapping[str, str]
    """What the run sees, beside what the resource config adds; no secrets."""
    secrets: Mapping[str, Secret[str]]
    """Environment variables that must not show in logs, argv, labels or files."""
    resource_args: Mapping[str, Any]
    """The resource config for this backend, macros filled."""
    entrypoint_asked: bool = False
    """Whether the item itself gave the work's entry point, not its job: it then goes before what
    the resource config has."""
    services: tuple[Mapping[str, Any], ...] = ()
    """What is to run beside the run, where the backend can: manifests, macros filled."""

    @property
    def item_id(self) -> ItemId:
        """The item that the run is for."""
        return self.origin.item_id

    @property
    def queue(self) -> QueueRef:
        """The item's queue."""
        return self.origin.queue

    @property
    def run(self) -> RunRef:
        """The run as W&B tracks it; what the backend makes is named after its id."""
        return self.origin.run

    @property
    def identity(self) -> str:
        """The agent's lasting identity, by which `find` knows the run again."""
        return self.origin.identity


class Runner(Protocol):
    """One backend. Every verb may be repeated: twice does no harm.

    Errors: `ItemError` when this run's user must act, `Unavailable` when the backend must.
    """

    @property
    def name(self) -> str:
        """Short, stable, a label in metrics: `process`, `docker`."""
        ...

    async def check(self) -> None:
        """Whether the backend can be used now.

        Raises:
            Unavailable: it cannot; the text says why and the remedy.
        """
        ...

    async def launch(self, order: LaunchOrder) -> RunHandle:
        """Start the run, or find it when an earlier call or life already did.

        Raises:
            NotBegun: as `Unavailable`, when no later look can find anything of this call.
        """
        ...

    def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        """Changes of the run's state; the last one has `end` set. Never ends without it."""
        ...

    async def cancel(self, handle: RunHandle, *, within_seconds: float) -> None:
        """Ask the run to stop and make it stop after `within_seconds`; already gone is fine."""
        ...

    async def log_tail(self, handle: RunHandle, *, lines: int) -> tuple[str, ...]:
        """The last `lines` lines of what the run printed, oldest first; () when nothing is left."""
        ...

    def logs(self, handle: RunHandle) -> AsyncGenerator[bytes, None]:
        """What the run prints, from the oldest that is left, followed to its end.

        Pieces of any size up to 64 KiB, cut anywhere. Memory does not grow with the log: a reader
        that is slow may miss what the backend drops meanwhile. Ends at once for a run that is gone.
        """
        ...

    async def find(self, identity: str) -> Sequence[FoundRun]:
        """All that the backend has of this agent's runs, of this life and earlier ones.

        One or a few lists, never a call for each run.
        """
        ...

    async def remove(self, handle: RunHandle) -> None:
        """Clean up what an ended and reported run left behind; already gone is fine."""
        ...

    async def serve(self) -> None:
        """Background work of the runner (one event stream, one list a tick); until cancelled."""
        ...


@runtime_checkable
class Rehearsing(Protocol):
    """A runner whose backend can say, before anything is built, that it would refuse a run."""

    async def rehearse(self, order: LaunchOrder) -> Sequence[str]:
        """Ask without starting anything; the image in `order.work` is a stand-in.

        Returns what the item's user should know of it.

        Raises:
            ItemError: the backend would refuse it.
            Unavailable: it cannot be asked now.
        """
        ...
