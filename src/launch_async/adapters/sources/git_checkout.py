"""One commit into one folder: shallow, with its submodules and the job's own changes.

```
name -> ls-remote -> commit -> fetch --depth 1 -> checkout -> submodules -> diff.patch -> no .git
                        └─ a server that gives no single commits: all branches and tags
```
"""

import os
import random
import re
import shutil
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from launch_async.adapters.sources.git_faults import (
    cannot_give_single_commits,
    fault_of,
    unknown_commit,
)
from launch_async.adapters.sources.git_process import Git, GitFailed
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.git import DEFAULT_BRANCH, is_commit, is_short_commit

TRIES = 3

_FETCH = ("fetch", "--quiet", "--force", "--no-recurse-submodules")
_UPDATE = ("submodule", "--quiet", "update", "--init", "--recursive", "--force")
_HEADS = "+refs/heads/*:refs/remotes/origin/*"
_SHA256_DIGITS = 64
_PATCH = "launch-async.patch"
_NO_TEXT = re.compile(
    rb"^Binary files (?:a/(.+)|/dev/null) and (?:b/(.+)|/dev/null) differ$", re.MULTILINE
)
_WILD = re.compile(r"([*?\[\\])")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Checkout:
    """Steps of a fetch, each of which raises `GitFailed` or `ItemError`."""

    def __init__(self, git: Git, remote: str, *, pause_seconds: float) -> None:
        self._git = git
        self._remote = remote
        self._pause_seconds = pause_seconds

    async def look_up(self, name: str) -> str:
        """The commit of a branch, else of a tag; what may be the beginning of a hash is itself."""
        names = [f"refs/heads/{name}", f"refs/tags/{name}^{{}}", f"refs/tags/{name}"]
        if name == DEFAULT_BRANCH or name.startswith("refs/"):
            names = [f"{name}^{{}}", name]
        answer = await self._insist("ls-remote", "--quiet", "--", self._remote, *names)
        lines = (line.partition("\t") for line in answer.split("\n"))
        found = {name: commit for commit, _, name in lines}
        for ref in names:
            if is_commit(found.get(ref, "")):
                return found[ref]
        if is_short_commit(name):
            return name
        raise unknown_commit(self._remote, name)

    async def fetch(self, commit: str) -> None:
        """Put the commit with its submodules into the folder."""
        sha256 = ["--object-format=sha256"] if len(commit) == _SHA256_DIGITS else []
        await self._git("init", "--quiet", *sha256)
        await self._git("remote", "add", "--", "origin", self._remote)
        if not is_commit(commit):
            await self._fetch_everything(commit)
        else:
            try:
                await self._insist(*_FETCH, "--no-tags", "--depth=1", "origin", commit)
            except GitFailed as error:
                if not cannot_give_single_commits(error):
                    raise
                await self._fetch_everything(commit)
        await self._git("checkout", "--quiet", "--force", "--detach", commit, "--")
        if (self._git.folder / ".gitmodules").is_file():
            await self._fetch_submodules()

    async def apply(self, patch: Path, commit: str) -> None:
        """Change the files as they were where the job was made; git itself keeps this contained.

        `git diff` shows of a binary file only that it differs: such files stay as committed.
        """
        content = await anyio.Path(patch).read_bytes()
        if not content.strip():
            return
        left_out = [
            os.fsdecode(name)
            for found in _NO_TEXT.finditer(content)
            for name in found.groups()
            if name is not None
        ]
        if left_out:
            shown = left_out[:20]
            log.warning("changes of binary files are not in the job's diff.patch", files=shown)
        aside = self._git.folder / ".git" / _PATCH
        await anyio.Path(aside).write_bytes(content)
        excluded = ["--exclude=" + _WILD.sub(r"[\1]", name) for name in left_out]
        try:
            await self._git("apply", "--whitespace=nowarn", *excluded, "--", str(aside))
        except GitFailed as error:
            msg = f"the job's diff.patch does not fit the commit {commit}; create the job again"
            raise ItemError(f"{msg}\n{error}", reason=Reason.JOB_INVALID) from error

    async def _fetch_everything(self, commit: str) -> None:
        await self._insist(*_FETCH, "--tags", "origin", _HEADS)
        try:
            await self._git("rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}")
        except GitFailed as error:
            raise unknown_commit(self._remote, commit) from error

    async def _fetch_submodules(self) -> None:
        try:
            await self._insist(*_UPDATE, "--depth=1")
        except GitFailed as error:
            if not cannot_give_single_commits(error):
                raise
            await self._git("submodule", "--quiet", "deinit", "--force", "--all")
            modules = self._git.folder / ".git" / "modules"
            await anyio.to_thread.run_sync(shutil.rmtree, modules)
            await self._insist(*_UPDATE)

    async def _insist(self, *arguments: str) -> str:
        """Run what talks to the remote; a network that fails for a moment is tried again."""
        for attempt in range(1, TRIES):
            try:
                return await self._git(*arguments)
            except GitFailed as error:
                fault = fault_of(error, remote=self._remote, wanted="", folder=self._git.folder)
                if not isinstance(fault, Unavailable):
                    raise
                log.debug("git is tried again", reason=str(fault), attempt=attempt)
            pause = self._pause_seconds * attempt * random.uniform(0.75, 1.25)  # noqa: S311
            await anyio.sleep(pause)
        return await self._git(*arguments)


def drop_repositories(folder: Path) -> None:
    """Nobody needs the history any more; blocks."""
    for here, folders, files in os.walk(folder):
        if ".git" in folders:
            folders.remove(".git")
            shutil.rmtree(Path(here, ".git"))
        if ".git" in files:
            Path(here, ".git").unlink()
