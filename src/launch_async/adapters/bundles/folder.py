"""Bundles as folders in the state folder: `bundles/<item>/bundle.json` and `error/error.log`."""

import shutil
import time
from collections.abc import Mapping, Set
from functools import partial
from pathlib import Path
from urllib.parse import quote

import anyio.to_thread

from launch_async.domain.ids import ItemId, RunId
from launch_async.kit.files import write_atomically
from launch_async.kit.keep import Keep, Kept, beyond, size_of
from launch_async.kit.names import plain_name
from launch_async.ports.retention import Pruned


class BundleFolder:
    """Implements `ports.bundles.BundleStore` and `ports.retention.Prunable`."""

    def __init__(self, state_dir: Path, keep: Keep) -> None:
        self._folder = state_dir.absolute() / "bundles"
        self._keep = keep

    async def keep(self, item_id: ItemId, files: Mapping[str, bytes]) -> None:
        """For the agent's user only, as logs may say more than anybody meant them to."""
        await anyio.to_thread.run_sync(partial(self._write, item_id, dict(files)))

    async def prune(self, open_runs: Set[RunId]) -> Pruned:
        """The oldest beyond the limits; no run needs a bundle."""
        del open_runs
        return await anyio.to_thread.run_sync(self._cut)

    def _write(self, item_id: ItemId, files: dict[str, bytes]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in files.items():
            file = self._folder / _name(item_id) / path
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(file, content)

    def _cut(self) -> Pruned:
        if not self._folder.is_dir():
            return Pruned()
        kept = [
            Kept(path=path, last_used=path.stat().st_mtime, size=size_of(path))
            for path in self._folder.iterdir()
        ]
        gone = beyond(kept, self._keep, now=time.time())
        for one in gone:
            shutil.rmtree(one.path)
        return Pruned(len(gone), sum(one.size for one in gone))


def _name(item_id: ItemId) -> str:
    """The item's id as people see it; only what is no file name is written otherwise."""
    quoted = quote(item_id, safe="=")
    return plain_name(item_id) if quoted.startswith(".") or len(quoted) > 200 else quoted
