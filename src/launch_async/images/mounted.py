"""Code that runs in a base image as it is: nothing is built (launch-features.md B9).

The runner puts the code at `CODE_DIRECTORY`. A job that names its base image has in it what it
needs; in one of the agent's choice the requirements are installed when the run starts.
"""

import re

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.images.settings import ImageSettings, builder_block, checked_reference
from launch_async.ports.build import BuildOrder
from launch_async.ports.jobs import Code
from launch_async.ports.runner import ImageWork

DEFAULT_PYTHON = "3.12"
"""Of a job that does not say; W&B's agent runs those in python:3.12-slim."""
INSTALL = """\
set -e
if [ -f requirements.txt ]; then set -- -r requirements.txt -- "$@"
elif [ -f pyproject.toml ]; then set -- . -- "$@"
elif [ -f requirements.frozen.txt ]; then set -- -r requirements.frozen.txt -- "$@"
else exec "$@"
fi
packages=""
while [ "$1" != -- ]; do packages="$packages $1"; shift; done
shift
python -m pip install --no-input --disable-pip-version-check --root-user-action=ignore $packages >&2
exec "$@"
"""
"""Run by `sh -c` in the code's folder, with the entry point as its arguments."""


def mounted(order: BuildOrder, code: Code, settings: ImageSettings) -> ImageWork:
    """What runs the order's code unbuilt.

    Raises:
        ItemError: there is no entry point, a Dockerfile was asked for, or the base is no image.
    """
    if not order.entrypoint:
        msg = "The job has no entry point: give the job or the item one."
        raise ItemError(msg, reason=Reason.BUILD_FAILED, stage=Stage.BUILD)
    if order.item.spec.overrides.dockerfile:
        msg = (
            "The item names a Dockerfile, but this agent builds no images, or the job names the"
            " base image that it runs in: leave the Dockerfile out, or use an agent that builds."
        )
        raise ItemError(msg, reason=Reason.TARGET_UNSUPPORTED, stage=Stage.BUILD)
    job = order.job
    if job.base_image:
        base = checked_reference(job.base_image, "The job's base image")
        return ImageWork(image=base, entrypoint=order.entrypoint, code=code.folder)
    block = builder_block(order.item.spec.resource_args)
    base = checked_reference(
        block.get("base_image") or settings.base_image or _python(job.runtime),
        "`builder.base_image`",
    )
    entrypoint = order.entrypoint
    if settings.install_unbuilt:
        entrypoint = ("sh", "-c", INSTALL, "sh", *entrypoint)
    return ImageWork(image=base, entrypoint=entrypoint, code=code.folder)


def _python(runtime: str | None) -> str:
    found = re.match(r"\d+\.\d+", runtime or "")
    return f"python:{found[0] if found else DEFAULT_PYTHON}-slim"
