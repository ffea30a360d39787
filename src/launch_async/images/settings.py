"""How images are made, and what every made image carries."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.image import ImageRef

LOCAL_REPOSITORY = "launch-async/job"
"""Where images are kept that no registry gets."""


class ImageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """From `builder` and `registry` of the agent's configuration."""

    destination: str | None = None
    """Repository, without a tag, that images are pushed to; None: they stay where they are made."""
    platform: str | None = None
    build_args: Mapping[str, str] = {}
    base_image: str | None = None
    """Base of generated Dockerfiles and of code that runs unbuilt; None: by the Python version."""
    install_with: Literal["pip", "uv"] = "pip"
    cache_mounts: bool = True
    """Whether generated Dockerfiles keep downloads in the builder, for the builds of all jobs."""
    user: str = "launch"
    uid: int = 1000
    wandb_tags: bool = False
    """Whether images get the tag of W&B's agent as well."""
    timeout_seconds: float = 3600.0
    """How long one build may take, its push included."""


def builder_block(resource_args: Mapping[str, object]) -> Mapping[str, object]:
    """W&B's `builder` block of a resource config.

    Raises:
        ItemError: it is no object.
    """
    block = resource_args.get("builder") or {}
    if not isinstance(block, Mapping):
        msg = "`builder` of the resource config must be an object; see docs/configuration.md"
        raise ItemError(msg, reason=Reason.RESOURCE_ARGS_INVALID, stage=Stage.BUILD)
    return block


def checked_reference(image: object, what: str) -> str:
    """The image as it was given, once it is known to be a reference; `what` names it in the error.

    Raises:
        ItemError: it is none.
    """
    try:
        ImageRef.parse(str(image))
    except ValueError as error:
        msg = f"{what}: {error}."
        raise ItemError(msg, reason=Reason.IMAGE_NOT_FOUND, stage=Stage.BUILD) from error
    return str(image)
