"""Images on the engine: what is there is used, or fetched, as the pull policy says."""

import re

import anyio
import structlog
from aiodocker.exceptions import DockerError

from launch_async.adapters.runners.docker.engine import Engine
from launch_async.adapters.runners.docker.policy import Pull
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.ports.images import RegistryLogin, RegistryLogins

_DENIED = ("unauthorized", "denied", "no basic auth credentials", "authentication required")
_AWAY = re.compile(
    r"\b(timeout|timed out|deadline exceeded|connection refused|connection reset|no route to host"
    r"|network is unreachable|server misbehaving|temporary failure in name resolution"
    r"|service unavailable|bad gateway|toomanyrequests|eof)\b"
)
"""What engines say of a registry, or of a resolver, that is away (docker.md §3)."""
_NO_SUCH_HOST = "no such host"
"""The resolver has answered: a host of this name does not exist."""
_ADDRESS = re.compile(r'"[^"]*"')

log = structlog.get_logger()


async def ensure_image(
    engine: Engine,
    image: str,
    *,
    platform: str | None,
    pull: Pull,
    logins: RegistryLogins | None,
    within_seconds: float,
) -> None:
    """Return when the engine has the image.

    Raises:
        ItemError: it cannot be had: no such image, no access, too slow.
        Unavailable: the engine or the registry does not answer.
    """
    if pull != "always" and await engine.has_image(image, platform):
        return
    if pull == "never":
        raise _not_found(image, "it is not on the engine, and `pull` is never")
    log.info("pulling image", image=image)
    login = None if logins is None else await logins.login(ImageRef.parse(image))
    try:
        with engine.reaching(), anyio.move_on_after(within_seconds) as patience:
            auth = None if login is None else _auth(login)
            await engine.client().images.pull(image, auth=auth, platform=platform)
    except DockerError as error:
        said = error.message.lower()
        if any(word in said for word in _DENIED):
            raise _denied(image, login, error) from error
        if _is_away(said, image):
            raise Unavailable(f"Image {image} could not be pulled: {error.message}") from error
        raise _not_found(image, error.message) from error
    if patience.cancelled_caught:
        raise _not_found(image, f"the pull took longer than {within_seconds:.0f} s")


def _is_away(said: str, image: str) -> bool:
    """Whether trying again may help; names and addresses in what the engine said do not count."""
    words = _ADDRESS.sub("", said).replace(image.lower(), "")
    return _NO_SUCH_HOST not in words and _AWAY.search(words) is not None


def _auth(login: RegistryLogin) -> dict[str, str]:
    return {"username": login.username, "password": login.password.reveal()}


def _denied(image: str, login: RegistryLogin | None, error: DockerError) -> ItemError:
    host = ImageRef.parse(image).host
    who = "without a login" if login is None else f"as {login.username}"
    return ItemError(
        f"The registry {host} does not let this agent pull {image} {who}: {error.message}. Give"
        " the agent a login for it (docs/configuration.md, registries), or check the name.",
        reason=Reason.REGISTRY_DENIED,
    )


def _not_found(image: str, why: str) -> ItemError:
    return ItemError(
        f"Image {image} could not be pulled: {why}. Check its name and tag, and whether this"
        " machine's Docker may pull it.",
        reason=Reason.IMAGE_NOT_FOUND,
    )
