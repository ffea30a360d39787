"""Makes code and git jobs runnable on this machine: a working copy and a virtual environment.

```
state_dir/runs/<run>/code          the run's own copy
state_dir/envs/<key>/              shared by all runs with the same requirements and Python
state_dir/envs/<key>/complete      written last: without it the folder is a crash's leftover
state_dir/envs/<key>.log, .lock    what pip said; who is building (across processes)
state_dir/envs/<key>.missing       requirements that the environment does without
state_dir/runs/<run>/environment   the key that this run needs: such are not evicted
state_dir/envs/base-<python>       pip alone, to copy from
```
"""

import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Set
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, CalledProcessError

import anyio
import anyio.to_thread
import structlog

from launch_async.adapters.builders.copies import WorkingCopies
from launch_async.adapters.builders.eviction import NEEDS, Shelf
from launch_async.adapters.builders.faults import build_failed
from launch_async.adapters.builders.pip import ToolFailed, run_tool
from launch_async.adapters.builders.venv import make_base, make_from_base
from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.ids import RunId
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, ImageSource
from launch_async.domain.requirements import Requirements, find_requirements
from launch_async.kit.failures import Failures
from launch_async.kit.keep import Keep
from launch_async.kit.names import plain_name
from launch_async.ports.build import BuildOrder
from launch_async.ports.jobs import JobStore
from launch_async.ports.retention import Pruned
from launch_async.ports.runner import CodeWork, Work

log = structlog.get_logger()

KEEP = Keep(max_age_seconds=14 * 86400, max_bytes=5 * 10**9)

_LOCK_SECONDS = 0.25
_ASK = "import sys; print(sys.implementation.name, *sys.version_info[:3])"


class EnvironmentBuilder:
    """Implements `ports.build.Builder` for local-process queues."""

    def __init__(
        self,
        state_dir: Path,
        jobs: JobStore,
        *,
        python: Path | None = None,
        install_timeout_seconds: float = 1800.0,
        keep: Keep = KEEP,
    ) -> None:
        self._runs = state_dir.absolute() / "runs"
        self._environments = state_dir.absolute() / "envs"
        self._copies = WorkingCopies(self._runs, jobs)
        self._python = python or Path(sys.executable)
        self._install_timeout_seconds = install_timeout_seconds
        self._versions: dict[str, str | None] = {}
        self._building: defaultdict[Path, anyio.Lock] = defaultdict(anyio.Lock)
        self._failures = Failures()
        self._shelf = Shelf(self._environments, self._runs, keep)

    async def build(self, order: BuildOrder) -> Work:
        """The run's working copy, and the environment that it asks for, made or found."""
        source = order.job.source
        if isinstance(source, ImageSource):
            raise _unsupported(
                f"local-process queues run code; {source.image} is an image:"
                " use a local-container queue."
            )
        if not order.entrypoint:
            raise build_failed("The job has no entry point: give the job or the item one.")
        code = await self._copies.of(order.item, source)
        needs = await anyio.to_thread.run_sync(find_requirements, code)
        python, version = await self._interpreter(order.job.runtime)
        warnings = _other_python(order.job.runtime, version)
        folder = self._environment_folder(order.item, source, needs, f"{python} {version}")
        await anyio.to_thread.run_sync(code.with_name(NEEDS).write_text, folder.name)
        async with self._made_once(folder) as needed:  # or whoever makes it is waited for
            if needed:
                failure = self._failures.since(folder, asked_at=order.item.popped_at)
                if failure is not None:
                    raise failure
                await self._make(folder, needs, python=python, code=code)
        with suppress(OSError):
            os.utime(folder)  # the longest unused ones are evicted
        warnings += await anyio.to_thread.run_sync(_warnings_of, folder)
        return CodeWork(
            directory=_inside(code, order.item.spec.overrides.working_dir),
            bin_directory=folder / "bin",
            entrypoint=order.entrypoint,
            warnings=tuple(warnings),
        )

    async def prune(self, open_runs: Set[RunId]) -> Pruned:
        """Evict environments that are beyond their limits, and old working copies of nobody."""
        left = await anyio.to_thread.run_sync(self._shelf.delete_leftovers, open_runs)
        removed, freed = left.removed, left.freed_bytes
        for one in await anyio.to_thread.run_sync(self._shelf.candidates):
            lock = self._building[one.path]
            if lock.locked():
                continue  # it is being made
            async with lock:
                aside = await anyio.to_thread.run_sync(self._shelf.set_aside, one.path)
            if aside is not None:
                await anyio.to_thread.run_sync(self._shelf.delete, aside)
                removed, freed = removed + 1, freed + one.size
        return Pruned(removed, freed)

    async def discard(self, item: Item) -> None:
        """Remove the item's working copy; another item's of the same run id stays."""
        await self._copies.discard(item)

    async def _interpreter(self, runtime: str | None) -> tuple[Path, str]:
        """The Python for the job, and its version; the agent's own if the wanted one is missing."""
        own = await self._version(self._python)
        if own is None:
            raise build_failed(f"The agent's Python, {self._python}, does not run: repair it.")
        wanted = re.search(r"(\d+)\.(\d+)", runtime or "")
        if wanted is None or own.split()[1:3] == [wanted[1], wanted[2]]:
            return self._python, own
        program = f"python{wanted[1]}.{wanted[2]}"
        found = shutil.which(program)
        version = await self._version(Path(found)) if found else None
        if found is None or version is None:
            log.warning("no such python here: the agent's own is used", wanted=program, used=own)
            return self._python, own
        return Path(found), version

    async def _version(self, python: Path) -> str | None:
        key = str(python)
        if key not in self._versions:
            try:
                # A name on PATH proves nothing: pyenv has shims of versions that are not active.
                done = await anyio.run_process([key, "-I", "-c", _ASK], stderr=DEVNULL)
                self._versions[key] = done.stdout.decode().strip()
            except (OSError, CalledProcessError):
                self._versions[key] = None
        return self._versions[key]

    def _environment_folder(
        self, item: Item, source: ArtifactSource | GitSource, needs: Requirements, python: str
    ) -> Path:
        if needs.editable:  # it links into this run's own copy
            return self._runs / plain_name(item.run_id) / "env"
        parts = [python, *needs.lines]
        if needs.local:
            parts.append(repr(source))
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        return self._environments / key

    @asynccontextmanager
    async def _made_once(self, folder: Path) -> AsyncGenerator[bool, None]:
        """Whether the block must make `folder`, emptied for it; marked complete after the block."""
        complete = folder / "complete"
        async with self._building[folder]:  # for the look too: an eviction holds it
            if complete.exists():
                yield False
                return
            async with _file_lock(folder.with_suffix(".lock")):
                if complete.exists():
                    yield False
                    return
                folder.with_suffix(".log").unlink(missing_ok=True)
                await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))
                yield True
                complete.touch()

    async def _make(self, folder: Path, needs: Requirements, *, python: Path, code: Path) -> None:
        try:
            await self._install_all(folder, needs, python=python, code=code)
        except ItemError as error:
            self._failures.add(folder, error)
            raise

    async def _install_all(
        self, folder: Path, needs: Requirements, *, python: Path, code: Path
    ) -> None:
        log.info("making environment", folder=str(folder), requirements=len(needs.lines))
        output = folder.with_suffix(".log")
        try:
            with anyio.fail_after(self._install_timeout_seconds):
                base = await self._base(python)
                await make_from_base(folder, base=base, python=python, output=output)
                await self._install(folder, needs, code=code, output=output)
        except TimeoutError as error:
            raise build_failed(
                f"Installing the job's requirements took longer than"
                f" {self._install_timeout_seconds:.0f} s; the log is {output}."
            ) from error
        except ToolFailed as error:
            why = "the package index cannot be reached" if error.no_network else "pip failed"
            raise build_failed(
                f"The job's requirements could not be installed: {why}.\n{error}"
            ) from error
        log.info("environment is ready", folder=str(folder))

    async def _base(self, python: Path) -> Path:
        key = hashlib.sha256(f"{python} {await self._version(python)}".encode()).hexdigest()[:16]
        folder = self._environments / f"base-{key}"
        async with self._made_once(folder) as needed:
            if needed:
                await make_base(folder, python=python, output=folder.with_suffix(".log"))
        return folder

    async def _install(
        self, folder: Path, needs: Requirements, *, code: Path, output: Path
    ) -> None:
        if not needs.lines:
            return
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install"]
        pip += ["--disable-pip-version-check", "--progress-bar=off"]
        listed = needs.file
        if listed is None:
            listed = folder / "requirements.txt"
            listed.write_text("\n".join(needs.lines), encoding="utf-8")
        try:
            await run_tool([*pip, "-r", str(listed)], cwd=code, output=output)
        except ToolFailed as error:
            if not needs.frozen or error.no_network:
                raise
            await self._install_what_can_be_had(pip, needs, code=code, output=output)

    async def _install_what_can_be_had(
        self, pip: list[str], needs: Requirements, *, code: Path, output: Path
    ) -> None:
        """One by one: a frozen list may name what exists only where it was written (B7)."""
        missing: list[str] = []
        alone = output.with_suffix(".line")
        for line in needs.lines:
            alone.write_text(line, encoding="utf-8")
            try:
                await run_tool([*pip, "--no-deps", "-r", str(alone)], cwd=code, output=output)
            except ToolFailed as error:
                missing.append(line)
                if len(missing) == len(needs.lines):
                    raise
                log.warning("requirement could not be installed", line=line, why=error.said[-1:])
        if missing:
            output.with_suffix(".missing").write_text("\n".join(missing), encoding="utf-8")


def _inside(code: Path, working_dir: str | None) -> Path:
    if not working_dir:
        return code
    folder = (code / working_dir).resolve()
    if not folder.is_relative_to(code.resolve()) or not folder.is_dir():
        raise build_failed(f"The working directory {working_dir} is no folder of the job's code.")
    return folder


def _other_python(runtime: str | None, version: str) -> list[str]:
    wanted = re.search(r"(\d+)\.(\d+)", runtime or "")
    if wanted is None or version.split()[1:3] == [wanted[1], wanted[2]]:
        return []
    used = ".".join(version.split()[1:3])
    return [f"the job wants Python {wanted[0]}, which this machine has not: it runs on {used}"]


def _warnings_of(folder: Path) -> list[str]:
    found: list[str] = []
    missing = folder.with_suffix(".missing")
    if missing.exists():
        lines = missing.read_text(encoding="utf-8").splitlines()
        found.append(f"requirements that could not be installed: {', '.join(lines)}")
    if not any(folder.glob("lib/python*/site-packages/wandb/__init__.py")):
        found.append("the job's environment has no wandb, so its run may never show")
    return found


@asynccontextmanager
async def _file_lock(path: Path) -> AsyncGenerator[None, None]:
    """Only one process at a time; the kernel lets go when the holder dies."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A blocking flock in a thread could not be cancelled; nothing tells of a release.
                await anyio.sleep(_LOCK_SECONDS)
        yield


def _unsupported(text: str) -> ItemError:
    return ItemError(text, reason=Reason.TARGET_UNSUPPORTED, stage=Stage.BUILD)
