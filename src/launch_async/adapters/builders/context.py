"""What every builder looks at before it starts, and does after it is done."""

from pathlib import Path, PurePosixPath

import anyio.to_thread

from launch_async.adapters.builders.faults import build_failed
from launch_async.domain.image import ImageRef
from launch_async.ports.images import ImageBuild


async def dockerfile_of(build: ImageBuild) -> Path:
    """The Dockerfile's place on this machine.

    Raises:
        ItemError: it is not in the context.
    """
    path = build.context.joinpath(*PurePosixPath(build.dockerfile).parts)
    if not await anyio.to_thread.run_sync(_is_within, path, build.context):
        raise build_failed(
            f"The build context has no file {build.dockerfile}: correct the Dockerfile's path."
        )
    return path


def bases_of(build: ImageBuild) -> tuple[ImageRef, ...]:
    """The bases that are image references, each once; others are the builder's to judge."""
    found: dict[ImageRef, None] = {}
    for text in build.bases:
        try:
            found[ImageRef.parse(text)] = None
        except ValueError:
            continue
    return tuple(found)


def images_of(build: ImageBuild) -> tuple[ImageRef, ...]:
    """What the build makes; last the one by which others know that all of them are there."""
    return tuple(ImageRef.parse(text) for text in (*build.more_images, build.image))


def _is_within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve()) and path.is_file()
