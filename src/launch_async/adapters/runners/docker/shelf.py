"""Images that were made here and that nobody has run for long leave the engine.

The engine does not say when an image was last used, so each use touches a file of the image's name.
What a container still needs, running or not, stays.
"""

from collections.abc import Set
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio.to_thread
import structlog
from aiodocker.exceptions import DockerError

from launch_async.adapters.runners.docker.engine import Engine
from launch_async.domain.errors import Unavailable
from launch_async.domain.ids import RunId
from launch_async.domain.image import MADE_LABEL
from launch_async.kit.clock import unix_now
from launch_async.kit.keep import Keep, Kept, beyond
from launch_async.kit.names import plain_name
from launch_async.ports.retention import Pruned

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ImageShelf:
    """Implements `ports.retention.Prunable` for the images that carry a label."""

    def __init__(
        self, engine: Engine, folder: Path, keep: Keep, *, label: str = MADE_LABEL
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._keep = keep
        self._label = label

    async def note_use(self, image: str) -> None:
        """The image, by its id, is about to be run."""
        await anyio.to_thread.run_sync(self._touch, image)

    async def prune(self, open_runs: Set[RunId]) -> Pruned:
        """Remove what is beyond the limits; an engine that is away is no matter."""
        del open_runs
        try:
            return await self._prune()
        except (Unavailable, DockerError) as error:
            log.warning("images not looked through", reason=str(error))
            return Pruned()

    async def _prune(self) -> Pruned:
        client = self._engine.client()
        filters = {"label": [self._label]}
        with self._engine.answering():
            images: list[dict[str, Any]] = await client.images.list(filters=filters)
            needed = {one["ImageID"] for one in await client.containers.list(all=True)}
        idle = [image for image in images if image["Id"] not in needed]
        uses = await anyio.to_thread.run_sync(self._uses, [image["Id"] for image in idle])
        kept = [
            Kept(
                path=Path(image["Id"]),
                last_used=max(uses.get(image["Id"], 0.0), _made(image)),
                size=int(image["Size"]),
            )
            for image in idle
        ]
        removed = freed = 0
        for one in beyond(kept, self._keep, now=unix_now()):
            if await self._removed(str(one.path)):
                removed, freed = removed + 1, freed + one.size
        return Pruned(removed, freed)

    async def _removed(self, image: str) -> bool:
        """By its id and with all its tags; one that somebody began to use meanwhile stays."""
        with self._engine.answering():
            try:
                tags = (await self._engine.client().images.inspect(image)).get("RepoTags") or []
                for name in tags or [image]:
                    await self._engine.client().images.delete(name)
            except DockerError as error:
                if error.status not in (404, 409):
                    raise
                return False
        (self._folder / plain_name(image)).unlink(missing_ok=True)
        return True

    def _touch(self, image: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / plain_name(image)).touch()

    def _uses(self, images: list[str]) -> dict[str, float]:
        """Moments of the last use; notes of images that are gone are dropped."""
        known = {plain_name(image): image for image in images}
        found: dict[str, float] = {}
        for note in self._folder.glob("*"):
            if note.name in known:
                found[known[note.name]] = note.stat().st_mtime
        return found


def _made(image: dict[str, Any]) -> float:
    made = image["Created"]
    return float(made) if isinstance(made, int) else datetime.fromisoformat(made).timestamp()
