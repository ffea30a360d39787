"""Makes a job runnable: an image, or an environment on this machine."""

from pathlib import Path
from typing import Protocol

import msgspec

from launch_async.domain.item import Item
from launch_async.domain.job import Job
from launch_async.ports.runner import Work


class Progress(Protocol):
    """Hears how the making of one item's work goes."""

    def say(self, detail: str) -> None:
        """What is being done now, in a few words for people."""
        ...

    def keep_log(self, path: Path) -> None:
        """This file belongs in the item's post-mortem bundle."""
        ...


class Unheard:
    """A `Progress` that nobody follows."""

    def say(self, detail: str) -> None:
        """Nothing."""

    def keep_log(self, path: Path) -> None:
        """Nothing."""


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved job that wants to become runnable."""

    item: Item
    job: Job
    entrypoint: tuple[str, ...]
    """The item's override, else the job's own; may be empty for images."""
    progress: Progress = Unheard()


class Builder(Protocol):
    """Finds or makes what a runner can start; the same order twice gives the same work.

    It bounds what it makes at once: the agent asks for all items that wait.
    """

    async def build(self, order: BuildOrder) -> Work:
        """Raises `ItemError` (stage build) when the job cannot be built, `Unavailable`."""
        ...

    async def discard(self, item: Item) -> None:
        """Remove what was made for this item alone when it was never launched."""
        ...
