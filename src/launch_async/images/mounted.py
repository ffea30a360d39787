"""Code that runs in a base image as it is: nothing is built (launch-features.md B9).

The runner puts the code at `CODE_DIRECTORY`, or the run fetches it itself to there. A job that
names its base image has in it what it needs; in one of the agent's choice the requirements are
installed when the run starts, by the rules of generated images.
"""

import posixpath

import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.job import ArtifactSource, GitSource
from launch_async.images.dependencies import install_at_start
from launch_async.images.generated import python_base
from launch_async.images.places import invalid, is_script_alone
from launch_async.images.settings import ImageSettings, builder_block, checked_reference
from launch_async.images.starting import starting
from launch_async.ports.build import BuildOrder
from launch_async.ports.jobs import Code
from launch_async.ports.runner import FetchedCode, ImageWork


def mounted(order: BuildOrder, code: Code, settings: ImageSettings) -> ImageWork:
    """What runs the order's code unbuilt; blocks, for a worker thread.

    Raises:
        ItemError: there is no entry point, a Dockerfile was asked for, the base is no image, or the
            requirements cannot be read.
    """
    work = _unbuilt(order, settings)
    if order.job.base_image:
        return msgspec.structs.replace(work, code=code.folder)
    entrypoint = (*install_at_start(code.folder), *work.entrypoint)
    return msgspec.structs.replace(work, entrypoint=entrypoint, code=code.folder)


def fetched(
    order: BuildOrder, source: ArtifactSource | GitSource, settings: ImageSettings
) -> ImageWork:
    """The same where the run fetches its code itself; nothing of it need be here.

    Raises:
        ItemError: as `mounted`, but for the requirements, which only the run will see; the working
            directory leads out of the code.
    """
    work, installs = _unbuilt(order, settings), not order.job.base_image
    fetch = FetchedCode(
        source=source,
        installs=installs,
        working_dir=_within(order.item.spec.overrides.working_dir),
    )
    entrypoint = starting(work.entrypoint) if installs else work.entrypoint
    return msgspec.structs.replace(work, entrypoint=entrypoint, fetch=fetch)


def _unbuilt(order: BuildOrder, settings: ImageSettings) -> ImageWork:
    """The base image and the entry point in it, without the code."""
    entrypoint = order.entrypoint
    if not entrypoint:
        raise invalid("The job has no entry point: give the job or the item one.")
    if order.item.spec.overrides.dockerfile:
        msg = (
            "The item names a Dockerfile, but this agent builds no images, or the job names the"
            " base image that it runs in: leave the Dockerfile out, or use an agent that builds."
        )
        raise ItemError(msg, reason=Reason.TARGET_UNSUPPORTED, stage=Stage.BUILD)
    if is_script_alone(entrypoint):
        entrypoint = ("python", *entrypoint)
    job = order.job
    if job.base_image:
        named = checked_reference(job.base_image, "The job's base image")
        return ImageWork(image=named, entrypoint=entrypoint)
    block = builder_block(order.item.spec.resource_args)
    base = python_base(block, settings.base_image, job.runtime)
    return ImageWork(image=base.image, entrypoint=entrypoint, warnings=base.warnings)


def _within(folder: str | None) -> str:
    """The folder within the code, empty for all of it."""
    path = posixpath.normpath(folder or ".")
    if path.startswith(("/", "../")) or path == ".." or "\0" in path:
        raise invalid(f"The working directory {folder!r} leads out of the job's code.")
    return "" if path == "." else path
