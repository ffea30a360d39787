"""The working copies of code: each run has its own, fetched aside and then renamed.

```
state_dir/runs/<run>/code          there only when it is whole
state_dir/runs/<run>/code.json     whose copy of what it is
```
"""

import shutil
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from launch_async.adapters.builders.eviction import NEEDS
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource
from launch_async.kit.names import plain_name
from launch_async.ports.jobs import JobStore


class _Copy(msgspec.Struct, frozen=True):
    """Whose copy of what a code folder is."""

    item_id: str
    source: str


class WorkingCopies:
    """`runs`: the folder with a folder for each run."""

    def __init__(self, runs: Path, jobs: JobStore) -> None:
        self._runs = runs
        self._jobs = jobs

    async def of(self, item: Item, source: ArtifactSource | GitSource) -> Path:
        """The folder with the item's code, fetched if need be.

        Raises:
            ItemError, Unavailable: as `JobStore.fetch`.
        """
        run = self._runs / plain_name(item.run_id)
        code, aside, mark = run / "code", run / "code.fetching", run / "code.json"
        copy = _Copy(item.id, repr(source))
        if await anyio.to_thread.run_sync(_is_copy, code, mark, copy):
            return code  # a run of an earlier life may be at work in it
        await anyio.to_thread.run_sync(_clear, run, code, aside, mark)
        await self._jobs.fetch(source, aside)

        def keep() -> None:
            aside.rename(code)
            mark.write_bytes(msgspec.json.encode(copy))

        await anyio.to_thread.run_sync(keep)
        return code

    async def discard(self, item: Item) -> None:
        """Remove the item's; another item's of the same run id stays."""
        await anyio.to_thread.run_sync(_discard, self._runs / plain_name(item.run_id), item.id)


def _is_copy(code: Path, mark: Path, copy: _Copy) -> bool:
    try:
        return code.is_dir() and msgspec.json.decode(mark.read_bytes(), type=_Copy) == copy
    except (FileNotFoundError, msgspec.DecodeError):
        return False


def _discard(run: Path, item_id: str) -> None:
    mark = run / "code.json"
    try:
        if msgspec.json.decode(mark.read_bytes(), type=_Copy).item_id != item_id:
            return
    except (FileNotFoundError, msgspec.DecodeError):
        pass  # not fetched to the end: nobody can be at work in it
    else:
        mark.unlink()
    (run / NEEDS).unlink(missing_ok=True)
    for folder in (run / "code", run / "code.fetching", run / "env"):
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # the runner's records keep the folder
        run.rmdir()


def _clear(run: Path, code: Path, aside: Path, mark: Path) -> None:
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)  # first: a half-deleted copy must not look whole
    (run / NEEDS).unlink(missing_ok=True)
    for folder in (code, aside, run / "env"):
        if folder.exists():
            shutil.rmtree(folder)
    aside.mkdir()
