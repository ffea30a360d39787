"""Ready images for Docker: nothing is built."""

from typing import assert_never

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, ImageSource
from launch_async.ports.build import BuildOrder
from launch_async.ports.runner import ImageWork, Work


class ReadyImages:
    """Implements `ports.build.Builder` for jobs that are images already."""

    async def build(self, order: BuildOrder) -> Work:
        """The job's image, with the item's or the job's entry point."""
        match order.job.source:
            case ImageSource(image=image):
                return ImageWork(image=image, entrypoint=order.entrypoint)
            case ArtifactSource() | GitSource():
                raise ItemError(
                    "Building images from code is not available in this version:"
                    " use an image job or a local-process queue.",
                    reason=Reason.TARGET_UNSUPPORTED,
                    stage=Stage.BUILD,
                )
            case _ as never:
                assert_never(never)

    async def discard(self, item: Item) -> None:
        """Nothing was made."""
