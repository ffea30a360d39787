"""Images on the engine: what is there already is used, else it is pulled."""

import anyio
import structlog
from aiodocker.exceptions import DockerError

from launch_async.adapters.runners.docker.engine import Engine
from launch_async.domain.errors import ItemError, Reason

log = structlog.get_logger()


async def ensure_image(
    engine: Engine, image: str, *, platform: str | None, within_seconds: float
) -> None:
    """Return when the engine has the image.

    Raises:
        ItemError: it cannot be had: no such image, no access, no way to the registry, too slow.
        Unavailable: the engine itself does not answer.
    """
    if await engine.has_image(image, platform):
        return
    log.info("pulling image", image=image)
    try:
        with engine.reaching(), anyio.move_on_after(within_seconds) as patience:
            await engine.client().images.pull(image, platform=platform)
    except DockerError as error:
        raise _not_found(image, error.message) from error
    if patience.cancelled_caught:
        raise _not_found(image, f"the pull took longer than {within_seconds:.0f} s")


def _not_found(image: str, why: str) -> ItemError:
    return ItemError(
        f"Image {image} could not be pulled: {why}. Check its name and tag, and whether this"
        " machine's Docker may pull it.",
        reason=Reason.IMAGE_NOT_FOUND,
    )
