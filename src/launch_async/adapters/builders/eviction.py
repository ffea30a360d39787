"""What job environments and working copies may go, and how they go while others are made.

A run that needs an environment says so in `runs/<run>/environment` before it looks whether that is
there, and both that look and an eviction hold the environment's lock: so nothing that a run needs
is evicted, in this life of the agent or after a crash.
"""

import shutil
import time
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from launch_async.domain.ids import RunId
from launch_async.kit.keep import Keep, Kept, beyond, size_of
from launch_async.kit.names import plain_name
from launch_async.ports.retention import Pruned

NEEDS = "environment"
"""File in a run's folder that names the environment it needs."""
ORDER = "order.json"
"""File in a run's folder once it was launched: from then on the runner removes the folder."""

_ASIDE = ".evicted-"
_LEFTOVER_SECONDS = 86400.0
"""Age of a working copy that belongs to no open run and was never launched."""


class Shelf:
    """The environments of one state folder. Blocking: for worker threads."""

    def __init__(self, environments: Path, runs: Path, keep: Keep) -> None:
        self._environments = environments
        self._runs = runs
        self._keep = keep
        self._sizes: dict[Path, int] = {}

    def candidates(self) -> list[Kept]:
        """Environments beyond the limits that no run needs now."""
        if not self._environments.is_dir():
            return []
        for left in self._environments.glob(f"{_ASIDE}*"):  # a crash came between
            shutil.rmtree(left, ignore_errors=True)
        folders = [
            path
            for path in self._environments.iterdir()
            if path.is_dir() and not path.name.startswith("base-")  # small, one per Python
        ]
        self._sizes = {path: size for path, size in self._sizes.items() if path in set(folders)}
        needed = self._needed()
        kept = [
            Kept(path=path, last_used=path.stat().st_mtime, size=self._size(path))
            for path in folders
        ]
        return [
            one for one in beyond(kept, self._keep, now=time.time()) if one.path.name not in needed
        ]

    def set_aside(self, folder: Path) -> Path | None:
        """Take an environment out of use, quickly; None: a run needs it after all."""
        if folder.name in self._needed():
            return None
        aside = folder.with_name(f"{_ASIDE}{folder.name}")
        with suppress(FileNotFoundError):
            folder.rename(aside)
        for suffix in (".log", ".line", ".lock", ".missing"):
            folder.with_suffix(suffix).unlink(missing_ok=True)
        return aside

    def delete(self, aside: Path) -> None:
        """The slow part."""
        self._sizes.pop(aside.with_name(aside.name.removeprefix(_ASIDE)), None)
        shutil.rmtree(aside, ignore_errors=True)

    def delete_leftovers(self, open_runs: Set[RunId]) -> Pruned:
        """Working copies of runs that were never launched and that no open item needs."""
        if not self._runs.is_dir():
            return Pruned()
        names = {plain_name(run_id) for run_id in open_runs}
        removed = freed = 0
        for folder in self._runs.iterdir():
            if folder.name in names or (folder / ORDER).exists():
                continue
            if time.time() - folder.stat().st_mtime > _LEFTOVER_SECONDS:
                freed += size_of(folder)
                removed += 1
                shutil.rmtree(folder)
        return Pruned(removed, freed)

    def _needed(self) -> set[str]:
        found: set[str] = set()
        for path in self._runs.glob(f"*/{NEEDS}"):
            with suppress(FileNotFoundError):
                found.add(path.read_text(encoding="utf-8"))
        return found

    def _size(self, folder: Path) -> int:
        if not (folder / "complete").exists():
            return size_of(folder)
        if folder not in self._sizes:  # what is complete does not change any more
            self._sizes[folder] = size_of(folder)
        return self._sizes[folder]
