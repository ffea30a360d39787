"""Makes a job runnable: an image, or an environment on this machine."""

from typing import Protocol

import msgspec

from launch_async.domain.item import Item
from launch_async.domain.job import Job
from launch_async.ports.runner import Work


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved job that wants to become runnable."""

    item: Item
    job: Job
    entrypoint: tuple[str, ...]
    """The item's override, else the job's own; may be empty for images."""


class Builder(Protocol):
    """Finds or makes what a runner can start; the same order twice gives the same work."""

    async def build(self, order: BuildOrder) -> Work:
        """Raises `ItemError` (stage build) when the job cannot be built, `Unavailable`."""
        ...

    async def discard(self, item: Item) -> None:
        """Remove what was made for this item alone when it was never launched."""
        ...
