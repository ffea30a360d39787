"""What base images are now: an image is another one when its base has changed."""

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import anyio
import structlog

from launch_async.domain.errors import ItemError, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.kit.flights import Flights
from launch_async.ports.images import ImageBuilder, ImageStore

BELIEVED_SECONDS = 60.0
"""How long what a registry says of a base image is believed."""
MAX_REMEMBERED = 1000

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Answer(NamedTuple):
    digest: str | None
    at: float


class Bases:
    """Digests of base images: where images are built, else in the base's registry."""

    def __init__(
        self,
        builder: ImageBuilder,
        registry: ImageStore,
        *,
        platform: str | None,
        believed_seconds: float = BELIEVED_SECONDS,
    ) -> None:
        self._builder = builder
        self._registry = registry
        self._platform = platform
        self._believed_seconds = believed_seconds
        self._flights = Flights[str | None]("base images")
        self._known: OrderedDict[str, _Answer] = OrderedDict()

    async def serve(self) -> None:
        """Own the questions to registries, until cancelled."""
        await self._flights.run()

    async def digest(self, image: str) -> str | None:
        """What it is now; None: nobody can say."""
        here = await self._builder.base_digest(image, platform=self._platform)
        if here is not None:
            return here
        known = self._known.get(image)
        if known is not None and anyio.current_time() - known.at < self._believed_seconds:
            return known.digest
        return await self._flights.get(image, partial(self._ask, image))

    async def _ask(self, image: str) -> str | None:
        found = None
        try:
            found = await self._registry.find(ImageRef.parse(image))
        except Unavailable as error:  # what it was before: an outage makes no other image
            found = self._known[image].digest if image in self._known else None
            log.debug("base image not looked up", image=image, reason=str(error))
        except (ItemError, ValueError) as error:  # the build will say it better
            log.debug("base image not looked up", image=image, reason=str(error))
        self._known[image] = _Answer(found, anyio.current_time())
        self._known.move_to_end(image)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return found
