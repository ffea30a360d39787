"""The cache of code: one fetch for all, nothing half, nothing removed that is in use."""

import errno
import json
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from launch_async.adapters.sources.cache import CodeCache
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.job import ArtifactSource, GitSource, Job
from launch_async.domain.secret import Secret
from launch_async.kit.keep import Keep
from launch_async.ports.retention import Prunable

pytestmark = pytest.mark.anyio

CODE = ArtifactSource("QQ==", job_artifact_id="Qg==")
COMMIT = "c" * 40
ROOMY = Keep(max_age_seconds=1e9, max_bytes=10**9)


class CountedJobs:
    """Writes a file for each fetch, when the test lets it."""

    def __init__(self) -> None:
        self.fetches = 0
        self.ended = 0
        self.begun = anyio.Event()
        self.may_end = anyio.Event()
        self.may_end.set()
        self.fault: Exception | None = None
        self.size = 10

    async def job(self, ref: str) -> Job:
        return Job(source=CODE)

    async def fetch(self, source: ArtifactSource | GitSource, into: Path) -> None:
        assert list(into.iterdir()) == []
        self.fetches += 1
        (into / "lib").mkdir(mode=0o700)
        (into / "lib" / "a.py").write_bytes(b"x" * self.size)
        (into / "run.sh").touch(mode=0o700)
        (into / "link").symlink_to("/etc/passwd")
        self.begun.set()
        try:
            await self.may_end.wait()
        finally:
            self.ended += 1
        if self.fault is not None:
            raise self.fault


@asynccontextmanager
async def cache(
    tmp_path: Path, jobs: CountedJobs | None = None, keep: Keep = ROOMY
) -> AsyncGenerator[tuple[CodeCache, CountedJobs]]:
    jobs = jobs or CountedJobs()
    store = CodeCache(tmp_path, jobs, keep=keep)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.serve)
        await anyio.wait_all_tasks_blocked()
        yield store, jobs
        tasks.cancel_scope.cancel()


async def have(store: CodeCache, source: ArtifactSource | GitSource = CODE) -> Path:
    async with store.code(source) as code:
        return code.folder


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "sources").iterdir())


async def gone(path: Path) -> None:
    """The cache removes it in its own time."""
    with anyio.fail_after(5):
        while path.exists():
            await anyio.sleep(0.01)


def grow_old(folder: Path, *, seconds: float = 3600.0) -> None:
    then = time.time() - seconds
    os.utime(folder.parent / "whole.json", (then, then))


async def test_code_is_fetched_once_for_all_who_ask(tmp_path: Path):
    async with cache(tmp_path) as (store, jobs):
        jobs.may_end = anyio.Event()
        found: list[Path] = []

        async def ask() -> None:
            found.append(await have(store))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            jobs.may_end.set()
        assert jobs.fetches == 1
        assert len(found) == 20
        assert len(set(found)) == 1
        await have(store)
        assert jobs.fetches == 1


async def test_the_next_life_finds_what_is_whole(tmp_path: Path):
    async with cache(tmp_path) as (store, jobs):
        first = await have(store)
    async with cache(tmp_path, jobs) as (store, _):
        assert await have(store) == first
    assert jobs.fetches == 1


async def test_what_a_power_cut_left_without_content_is_fetched_again(tmp_path: Path):
    async with cache(tmp_path) as (store, jobs):
        folder = await have(store)
    (folder / "lib" / "a.py").write_bytes(b"")
    async with cache(tmp_path, jobs) as (store, _):
        again = await have(store)
    assert (jobs.fetches, (again / "lib" / "a.py").stat().st_size) == (2, 10)
    assert len(folders(tmp_path)) == 1


async def test_what_a_crash_left_half_is_removed(tmp_path: Path):
    half = tmp_path / "sources" / ".new-0000-key" / "code"
    half.mkdir(parents=True)
    (tmp_path / "sources" / ".old-0000-key").mkdir()
    unmarked = tmp_path / "sources" / "unmarked"
    (unmarked / "code").mkdir(parents=True)
    async with cache(tmp_path, keep=Keep(max_age_seconds=60, max_bytes=10**9)) as (store, _):
        await gone(half.parent)
        await store.prune(frozenset())
    assert folders(tmp_path) == []


async def test_modes_do_not_depend_on_how_it_was_fetched(tmp_path: Path):
    async with cache(tmp_path) as (store, _):
        folder = await have(store)
    modes = {
        path.name: oct(path.stat().st_mode & 0o7777)
        for path in (folder, folder / "lib", folder / "lib" / "a.py", folder / "run.sh")
    }
    assert modes == {"code": "0o755", "lib": "0o755", "a.py": "0o644", "run.sh": "0o755"}
    assert (folder / "link").is_symlink()
    assert oct((tmp_path / "sources").stat().st_mode & 0o7777) == "0o700"


@pytest.mark.parametrize("fault", [ItemError("gone", reason=Reason.JOB_INVALID), Unavailable("x")])
async def test_a_fetch_that_fails_leaves_nothing_and_the_next_one_tries_again(
    tmp_path: Path, fault: Exception
):
    async with cache(tmp_path) as (store, jobs):
        jobs.fault = fault
        with pytest.raises(type(fault)):
            await have(store)
        assert folders(tmp_path) == []
        jobs.fault = None
        assert (await have(store)).is_dir()


async def test_a_full_disk_is_the_items_end(tmp_path: Path):
    async with cache(tmp_path) as (store, jobs):
        jobs.fault = OSError(errno.ENOSPC, "No space left on device", "/x")
        with pytest.raises(ItemError, match="no room to fetch the job's code") as caught:
            await have(store)
        assert caught.value.reason is Reason.SOURCE_UNAVAILABLE
        assert folders(tmp_path) == []


async def test_the_last_who_leaves_ends_the_fetch(tmp_path: Path):
    async with cache(tmp_path) as (store, jobs):
        jobs.may_end = anyio.Event()
        first, last = anyio.CancelScope(), anyio.CancelScope()

        async def ask(scope: anyio.CancelScope) -> None:
            with scope:
                await have(store)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, first)
            tasks.start_soon(ask, last)
            await jobs.begun.wait()
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            await anyio.wait_all_tasks_blocked()
            assert jobs.ended == 0
            (begun,) = (tmp_path / "sources").iterdir()
            last.cancel()
        await gone(begun)
        assert jobs.ended == 1


async def test_the_longest_unused_goes_when_there_is_too_much(tmp_path: Path):
    keep = Keep(max_age_seconds=1e9, max_bytes=100_000)
    async with cache(tmp_path, keep=keep) as (store, jobs):
        jobs.size = 60_000
        old = await have(store)
        grow_old(old)
        new = await have(store, ArtifactSource("other"))
        await gone(old)
        assert new.exists()


async def test_what_is_too_old_goes(tmp_path: Path):
    async with cache(tmp_path) as (store, _):
        old, new = await have(store), await have(store, ArtifactSource("other"))
    grow_old(old)
    keep = Keep(max_age_seconds=1800, max_bytes=10**9)
    async with cache(tmp_path, keep=keep) as (store, _):
        assert isinstance(store, Prunable)
        pruned = await store.prune(frozenset())
        assert (pruned.removed, old.exists(), new.exists()) == (1, False, True)
        assert pruned.freed_bytes > 0


async def test_what_is_in_use_stays_whatever_the_limits(tmp_path: Path):
    async with cache(tmp_path) as (store, _):
        await have(store)
    async with cache(tmp_path, keep=Keep(max_age_seconds=0, max_bytes=0)) as (store, _):
        async with store.code(CODE) as code:
            grow_old(code.folder)
            assert (await store.prune(frozenset())).removed == 0
            assert code.folder.exists()
        assert (await store.prune(frozenset())).removed == 1


async def test_what_was_used_just_now_stays_for_the_launch_that_follows(tmp_path: Path):
    async with cache(tmp_path) as (store, _):
        folder = await have(store)
    async with cache(tmp_path, keep=Keep(max_age_seconds=0, max_bytes=0)) as (store, _):
        assert (await store.prune(frozenset())).removed == 0
        assert folder.exists()


async def test_another_source_is_another_key(tmp_path: Path):
    sources = [
        CODE,
        ArtifactSource("QQ=="),
        ArtifactSource("QQ==", job_artifact_id="Qg==", notebook="a.ipynb"),
        GitSource("https://h/r.git", COMMIT),
        GitSource("https://h/s.git", COMMIT),
        GitSource("https://h/r.git", "d" * 40),
        GitSource("https://h/r.git", COMMIT, job_artifact_id="Qg=="),
        GitSource("https://h/r.git", COMMIT, login=Secret("me:planted-word")),
        GitSource("https://h/r.git", COMMIT, login=Secret("you:planted-word")),
    ]
    async with cache(tmp_path) as (store, jobs):
        for source in sources * 2:
            await have(store, source)
        assert jobs.fetches == len(sources)
        for path in (tmp_path / "sources").glob("*/whole.json"):
            assert json.loads(path.read_text()) == {"files": 3, "content_bytes": 21}


async def test_a_branch_is_no_content(tmp_path: Path):
    async with cache(tmp_path) as (store, _):
        with pytest.raises(ValueError, match="is not pinned"):
            await have(store, GitSource("https://h/r.git", "main"))
