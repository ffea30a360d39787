"""Job environments that go when nobody needs them any more, and those that stay."""

import os
import time
from pathlib import Path

import pytest

from builders.test_environments import WrittenJobs, make_order, state  # noqa: F401 - fixtures
from launch_async.adapters.builders.environments import EnvironmentBuilder
from launch_async.domain.ids import RunId
from launch_async.kit.keep import Keep
from launch_async.ports.retention import Pruned

pytestmark = pytest.mark.anyio

DAY = 86400.0
MB = 10**6
NOTHING = Keep(max_age_seconds=0.0, max_bytes=0)
NO_RUNS = frozenset[RunId]()


def builder_of(state: Path, keep: Keep = NOTHING) -> EnvironmentBuilder:  # noqa: F811
    return EnvironmentBuilder(state, WrittenJobs({}), keep=keep)


def written(state: Path, key: str, *, days: float, size: int = MB) -> Path:  # noqa: F811
    """An environment that was last used so long ago."""
    folder = state / "envs" / key
    folder.mkdir(parents=True)
    (folder / "content").write_bytes(b"x" * size)
    (folder / "complete").touch()
    folder.with_suffix(".log").write_text("pip said")
    age(folder, days)
    return folder


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


async def test_environments_go_by_age_and_then_by_size_the_longest_unused_first(state: Path):  # noqa: F811
    builder = builder_of(state, Keep(max_age_seconds=5 * DAY, max_bytes=int(2.5 * MB)))
    folders = [written(state, f"e{days}", days=days) for days in (9, 4, 3, 2)]
    pruned = await builder.prune(NO_RUNS)
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    assert pruned.removed == 2
    assert pruned.freed_bytes >= 2 * MB
    assert not folders[0].with_suffix(".log").exists()
    assert list(state.glob("envs/base-*/complete")), "what environments are made from stays"
    assert await builder.prune(NO_RUNS) == Pruned()


async def test_what_a_run_needs_stays_until_the_run_is_gone(state: Path):  # noqa: F811
    order = make_order()
    work = await builder_of(state).build(order)
    after_a_crash = builder_of(state)
    assert (await after_a_crash.prune(NO_RUNS)).removed == 0
    assert (work.bin_directory / "python").exists()
    await after_a_crash.discard(order.item)
    assert (await after_a_crash.prune(NO_RUNS)).removed == 1
    assert not work.bin_directory.exists()
    again = await after_a_crash.build(order)
    assert (again.bin_directory / "python").exists()


async def test_what_is_being_made_stays(state: Path):  # noqa: F811
    builder = builder_of(state)
    folder = written(state, "made-now", days=9)
    async with builder._building[folder]:
        assert (await builder.prune(NO_RUNS)).removed == 0
    assert (await builder.prune(NO_RUNS)).removed == 1


async def test_a_run_that_comes_while_its_environment_is_chosen_for_eviction_keeps_it(state: Path):  # noqa: F811
    builder = builder_of(state)
    folder = written(state, "chosen", days=9)
    (chosen,) = builder._shelf.candidates()
    needs = state / "runs" / "run1" / "environment"
    needs.parent.mkdir(parents=True)
    needs.write_text("chosen")
    assert builder._shelf.set_aside(chosen.path) is None
    assert folder.exists()


async def test_half_an_eviction_is_finished_by_the_next_one(state: Path):  # noqa: F811
    builder = builder_of(state, Keep(max_age_seconds=DAY, max_bytes=MB * 9))
    folder = written(state, "half", days=9)
    aside = builder._shelf.set_aside(folder)
    assert aside is not None
    assert not folder.exists()
    await builder.prune(NO_RUNS)
    assert not aside.exists()


async def test_working_copies_of_nobody_go_and_runners_folders_stay(state: Path):  # noqa: F811
    runs = state / "runs"
    for name in ("old", "open", "launched", "young"):
        (runs / name / "code").mkdir(parents=True)
    (runs / "launched" / "order.json").touch()
    for name in ("old", "open", "launched"):
        age(runs / name, 9)
    await builder_of(state).prune(frozenset({RunId("open")}))
    assert sorted(path.name for path in runs.iterdir()) == ["launched", "open", "young"]


async def test_a_run_is_warned_of_what_its_environment_lacks(state: Path):  # noqa: F811
    work = await builder_of(state).build(make_order(runtime="2.7"))
    assert any("Python 2.7" in warning for warning in work.warnings)
    assert any("no wandb" in warning for warning in work.warnings)
