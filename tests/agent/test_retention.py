"""What grows with time is cut back, and nothing that is in use."""

import os
import time
from pathlib import Path

import anyio
import pytest
from fakes import until

from launch_async.adapters.bundles.folder import BundleFolder
from launch_async.agent.retention import Retention
from launch_async.domain.ids import ItemId, RunId
from launch_async.kit.keep import Keep
from launch_async.ports.retention import Pruned

pytestmark = pytest.mark.anyio

DAY = 86400.0
MB = 10**6
NOTHING = frozenset[RunId]()


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


async def bundle(folder: BundleFolder, state_dir: Path, name: str, *, days: float) -> Path:
    await folder.keep(ItemId(name), {"bundle.json": b"{}", "error/error.log": b"x" * MB})
    path = state_dir / "bundles" / name
    age(path, days)
    return path


async def test_bundles_go_by_age_and_then_by_size_the_oldest_first(tmp_path: Path):
    folder = BundleFolder(tmp_path, Keep(max_age_seconds=5 * DAY, max_bytes=int(2.5 * MB)))
    paths = [await bundle(folder, tmp_path, f"i{days}=", days=days) for days in (9, 4, 3, 2)]
    pruned = await folder.prune(NOTHING)
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert pruned.removed == 2
    assert pruned.freed_bytes >= 2 * MB
    assert await folder.prune(NOTHING) == Pruned()


async def test_a_bundle_is_for_the_agents_user_only_and_leaves_the_folder_for_no_name(
    tmp_path: Path,
):
    folder = BundleFolder(tmp_path, Keep(max_age_seconds=DAY, max_bytes=MB))
    for name in ("../../evil", "..", "a/b", "x" * 5000):
        await folder.keep(ItemId(name), {"bundle.json": b"{}"})
    made = list((tmp_path / "bundles").iterdir())
    assert len(made) == 4
    assert not (tmp_path.parent / "evil").exists()
    assert {(one / "bundle.json").stat().st_mode & 0o777 for one in made} == {0o600}


async def test_a_store_that_cannot_be_cut_back_costs_the_others_nothing():
    seen: list[frozenset[RunId]] = []

    class Broken:
        async def prune(self, open_runs):
            raise PermissionError("no")

    class Counting:
        async def prune(self, open_runs):
            seen.append(open_runs)
            return Pruned()

    stores = {"broken": Broken(), "counting": Counting()}
    open_runs = frozenset({RunId("r")})
    retention = Retention(stores, open_runs=lambda: open_runs, interval_seconds=0.001)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(retention.serve)
        await until(lambda: len(seen) > 2)
        tasks.cancel_scope.cancel()
    assert set(seen) == {open_runs}
