"""What makes images, where they are kept, and who may read and write there."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret

Say = Callable[[str], None]
"""Told what is being done now, in a few words for people: `step 3/7: RUN pip install …`."""


class ImageBuild(msgspec.Struct, frozen=True, kw_only=True):
    """One image to make. Nothing in it is secret."""

    context: Path
    """Folder of the build context, whole: what is ignored has been left out already."""
    dockerfile: str
    """The Dockerfile's path within the context, with `/`."""
    image: str
    """Reference with the tag that the image gets."""
    more_images: tuple[str, ...] = ()
    """Further references that it gets as well."""
    bases: tuple[str, ...] = ()
    """What the Dockerfile starts or copies from, as far as is known; logins are got for these."""
    platform: str | None = None
    """`linux/amd64` or the like; None: the builder's own."""
    target: str | None = None
    """Stage to build; None: the last one."""
    build_args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    push: bool = False
    """Whether the image must be in its registry afterwards."""
    log: Path
    """File that gets all that the build prints; made new."""


class ImageBuilder(Protocol):
    """Makes images.

    Errors: `ItemError` (stage build, the failed step and the log's last lines in its text) when the
    Dockerfile or its context is at fault, `Unavailable` when the builder or the registry is.
    Cancelling `build` ends the build on the builder, within a second.
    """

    @property
    def name(self) -> str:
        """Short, stable, a label in metrics: `docker`, `buildx`, `buildkit`."""
        ...

    @property
    def has_mounts(self) -> bool:
        """Whether Dockerfiles may use BuildKit's `RUN --mount=type=cache`."""
        ...

    async def check(self) -> None:
        """Whether it can be used now; raises `Unavailable` with the reason and the remedy."""
        ...

    async def build(self, build: ImageBuild, say: Say) -> None:
        """Make the image, and push it if so ordered. Returns when it can be launched."""
        ...

    async def base_digest(self, image: str, *, platform: str | None) -> str | None:
        """What `FROM image` would be now: a digest or an engine's id; None: nobody knows yet."""
        ...


class ImageStore(Protocol):
    """A place where images are looked for: an engine's own store or a registry."""

    async def find(self, image: ImageRef) -> str | None:
        """The digest or id of the image; None: it is not there.

        Raises:
            ItemError: access is denied.
            Unavailable: the store does not answer.
        """
        ...


class RegistryLogin(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in at one registry."""

    username: str
    password: Secret[str]
    """A password or a token, valid for at least some minutes more."""


class RegistryLogins(Protocol):
    """Knows logins. Asked for each use, so that what expires is renewed in time."""

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        """For this image's registry; None: without a login.

        Raises:
            ItemError: what is configured for this registry is wrong (a helper or file is missing).
            Unavailable: the cloud that hands out tokens does not answer.
        """
        ...
