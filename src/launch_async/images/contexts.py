"""What build contexts hold: each is read once for all who ask, and remembered while there is room.

An item whose image is there already costs no look at its files.
"""

import hashlib
from collections import OrderedDict
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.images.ignore import Ignore
from launch_async.images.recipe import Recipe
from launch_async.images.staging import Scanned, scan
from launch_async.kit.flights import Flights
from launch_async.ports.jobs import Code

MAX_REMEMBERED = 1000
MAX_ENTRIES = 100_000
"""Files of all contexts that are remembered; each takes some 300 bytes."""
_AT_ONCE = 2
"""Reading is work for disk and CPU: more at once only make each slower."""


class Contexts:
    """Remembers by the code's key, whose content never changes, and by what is taken of it."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._flights = Flights[Scanned]("context scans")
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        self._known: OrderedDict[bytes, Scanned] = OrderedDict()
        self._entries = 0

    async def serve(self) -> None:
        """Own the reading, until cancelled."""
        await self._flights.run()

    async def scanned(self, code: Code, recipe: Recipe) -> Scanned:
        """What the recipe's context holds.

        Raises:
            ItemError: it holds what cannot be sent, or cannot be read.
        """
        ways = (code.key, str(recipe.context), recipe.ignore, recipe.extra_files)
        key = hashlib.sha256(msgspec.json.encode(ways, order="sorted")).digest()
        known = self._known.get(key)
        if known is None:
            known = await self._flights.get(key, partial(self._scan, key, recipe))
        if key in self._known:
            self._known.move_to_end(key)
        return known

    async def _scan(self, key: bytes, recipe: Recipe) -> Scanned:
        look = partial(
            scan,
            recipe.context,
            includes=Ignore(recipe.ignore).includes,
            extra_files=recipe.extra_files,
            checkpoint=anyio.from_thread.check_cancelled,
        )
        try:
            found = await anyio.to_thread.run_sync(look, limiter=self._limiter)
        except OSError as error:
            msg = f"The job's code cannot be read: {error.strerror or error} ({error.filename!r})."
            raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE, stage=Stage.BUILD) from error
        self._remember(key, found)
        return found

    def _remember(self, key: bytes, found: Scanned) -> None:
        self._known[key] = found
        self._entries += len(found.entries)
        while len(self._known) > MAX_REMEMBERED or (
            self._entries > self._max_entries and len(self._known) > 1
        ):
            _, forgotten = self._known.popitem(last=False)
            self._entries -= len(forgotten.entries)
