"""What is said when a registry does not let us in: which one, why, and what to do."""

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.image import DOCKER_HUB, ImageRef
from launch_async.ports.images import RegistryLogin


def denied(image: ImageRef, why: str, remedy: str) -> ItemError:
    """The error of an item that needs this image."""
    return ItemError(
        f"The registry {image.host} denies access to {image.repository}: {why}. {remedy}",
        reason=Reason.REGISTRY_DENIED,
        stage=Stage.BUILD,
    )


def refused(image: ImageRef, why: str, login: RegistryLogin | None) -> ItemError:
    """The error of a question that was answered with 401 or 403."""
    command = "docker login" if image.host == DOCKER_HUB else f"docker login {image.host}"
    if login is None:
        remedy = (
            f"The agent has no login for it: give it one, for example with `{command}` as its"
            " user. Some registries also say this for a repository that is not there."
        )
    else:
        remedy = (
            "The agent's login for it was refused: renew it, or let it read this repository. Some"
            " registries also say this for a repository that is not there."
        )
    return denied(image, why, remedy)


class NothingHere(ItemError):
    """There is no login to be had on this machine: its library or its credentials are missing."""


def unusable(host: str, why: str, remedy: str, *, kind: type[ItemError] = ItemError) -> ItemError:
    """The error of a login that is configured, but cannot be had."""
    return kind(
        f"The login for the registry {host} cannot be used: {why}. {remedy}",
        reason=Reason.REGISTRY_DENIED,
        stage=Stage.BUILD,
    )
