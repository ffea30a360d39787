"""Logins for the nodes that pull a run's images, renewed for as long as the run has not begun.

A token of ECR lasts for hours, one of Google for one hour: a run that waits longer for its turn or
for a node would find its pull Secret expired. Whoever hands out logins renews them in time; what
has changed goes into the Secret, which the kubelet reads at each try.
"""

import math
from collections.abc import Mapping

import anyio
import structlog

from launch_async.adapters.runners.kubernetes.facts import Facts
from launch_async.adapters.runners.kubernetes.names import pull_secret_name
from launch_async.adapters.runners.kubernetes.secret_bodies import pull_secret_data
from launch_async.adapters.runners.kubernetes.secret_calls import secret_path
from launch_async.adapters.runners.kubernetes.watches import Station
from launch_async.domain.errors import ItemError, LaunchError, Reason
from launch_async.domain.image import ImageRef
from launch_async.ports.images import RegistryLogin, RegistryLogins
from launch_async.wire.kubernetes.errors import KubeRefused

REFRESH_SECONDS = 60.0
"""Between two looks for a login that has changed; less than what is left of any when it does."""
_MAX_IMAGES = 256

Logins = Mapping[str, RegistryLogin]
"""By the registry's host."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class PullLogins:
    """`logins` None: nobody knows any."""

    def __init__(
        self, logins: RegistryLogins | None, *, refresh_seconds: float = REFRESH_SECONDS
    ) -> None:
        self._logins = logins
        self._seconds = refresh_seconds
        self._given: dict[str, Logins] = {}
        self._due: dict[str, float] = {}
        self._recent: dict[str, tuple[float, Logins]] = {}
        self._asking = anyio.Lock()

    async def of(self, *images: str) -> Logins:
        """The logins for these images' registries; empty: there are none.

        Raises:
            ItemError: one is no name of an image, or what is configured for its registry is wrong.
            Unavailable: the cloud that hands out tokens does not answer.
        """
        found: dict[str, RegistryLogin] = {}
        for image in filter(None, images):
            found |= await self._of(image)
        return found

    def note(self, uid: str, logins: Logins) -> None:
        """These are in the pull Secret of the run with this object."""
        self._given[uid] = logins
        self._due[uid] = anyio.current_time() + self._seconds

    def forget(self, uid: str) -> None:
        """The run is over."""
        self._given.pop(uid, None)
        self._due.pop(uid, None)

    async def refresh(self, station: Station, facts: Facts) -> None:
        """Of a run that has not begun; what cannot be renewed now is tried again later."""
        uid, now = facts.uid, anyio.current_time()
        if self._logins is None or now < self._due.get(uid, -math.inf):
            return
        self._due[uid] = now + self._seconds
        try:
            await self._refresh(station, facts)
        except KubeRefused as error:
            log.warning("a login for images is not renewed", run=facts.name, why=error.message)
        except LaunchError as error:
            log.warning("a login for images is not renewed", run=facts.name, why=str(error))

    async def _refresh(self, station: Station, facts: Facts) -> None:
        logins = {**await self._lately(facts.image), **await self._lately(facts.code_image)}
        if not logins or logins == self._given.get(facts.uid):
            return
        path = secret_path(station.spot.namespace, pull_secret_name(facts.name))
        try:
            await station.cluster.api.patch(path, {"data": pull_secret_data(logins)})
        except KubeRefused as error:
            if not error.not_found:  # else it was launched without one
                raise
        else:
            log.info("login for images renewed", run=facts.name)
        self._given[facts.uid] = logins

    async def _lately(self, image: str) -> Logins:
        """As `of`, for one image and all who ask within a while: a login may be a program's."""
        if not image:
            return {}
        async with self._asking:
            at, logins = self._recent.pop(image, (-math.inf, {}))
            if anyio.current_time() >= at + self._seconds / 2:
                at, logins = anyio.current_time(), await self._of(image)
            self._recent[image] = (at, logins)
            if len(self._recent) > _MAX_IMAGES:
                del self._recent[next(iter(self._recent))]
            return logins

    async def _of(self, image: str) -> Logins:
        if self._logins is None:
            return {}
        try:
            reference = ImageRef.parse(image)
        except ValueError as error:
            raise ItemError(
                f"{image!r} is no name of an image.", reason=Reason.SPEC_INVALID
            ) from error
        login = await self._logins.login(reference)
        return {} if login is None else {reference.host: login}
