"""A job's `diff.patch`: what was changed but not committed where the job was made."""

import os
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from git_servers import HttpsServer, Repository, https_server, run_git
from launch_async.adapters.sources.git import GitCode
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.git import GitSettings
from launch_async.domain.job import GitSource

pytestmark = pytest.mark.anyio


class Case:
    """One repository, and a job made of it with changes that are not committed."""

    def __init__(self, server: HttpsServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.repository = Repository(server.root, "code")
        self.work = self.repository.work
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        self.code = GitCode(GitSettings(ca_file=str(server.ca_file)), environ=environ)

    def changes(self, *options: str) -> str:
        """As the wandb client saves them."""
        return run_git("diff", *options, "HEAD", cwd=self.work) + "\n"

    async def fetch(self, commit: str, changes: str) -> Path:
        into, patch = self.folder / "into", self.folder / "diff.patch"
        into.mkdir()
        patch.write_text(changes)
        source = GitSource(self.server.remote(self.repository), commit)
        await self.code.fetch(source, into, patch=patch)
        return into


@pytest.fixture
async def case(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[Case]:
    async with https_server(tmp_path / "https") as server:
        yield Case(server, tmp_path)


async def test_changes_are_made_to_the_commit(case: Case):
    commit = case.repository.commit({"a": "1\n", "gone": "1\n", "b c": "1\n"})
    (case.work / "a").write_text("2\n")
    (case.work / "b c").write_text("no line's end")
    (case.work / "gone").unlink()
    (case.work / "new").mkdir()
    (case.work / "new" / "run.sh").write_text("#!/bin/sh\n")
    (case.work / "new" / "run.sh").chmod(0o755)
    run_git("add", "--all", "--intent-to-add", cwd=case.work)
    into = await case.fetch(commit, case.changes())
    assert (into / "a").read_text() == "2\n"
    assert (into / "b c").read_text() == "no line's end"
    assert not (into / "gone").exists()
    assert (into / "new" / "run.sh").stat().st_mode & 0o100
    assert sorted(path.name for path in into.iterdir()) == ["a", "b c", "new"]


@pytest.mark.parametrize("changes", ["", "\n\n"])
async def test_no_changes_change_nothing(case: Case, changes: str):
    commit = case.repository.commit({"a": "1\n"})
    assert ((await case.fetch(commit, changes)) / "a").read_text() == "1\n"


async def test_binary_files_stay_as_they_were_committed(case: Case):
    old = secrets.token_bytes(100) + b"\0"
    commit = case.repository.commit({"a": "1\n", "m[*].bin": old, "dead.bin": old})
    (case.work / "m[*].bin").write_bytes(b"\0new")
    (case.work / "dead.bin").unlink()
    (case.work / "a").write_text("2\n")
    into = await case.fetch(commit, case.changes())
    assert (into / "a").read_text() == "2\n"
    assert (into / "m[*].bin").read_bytes() == old


async def test_changes_within_a_submodule_are_made_too(case: Case):
    inner = Repository(case.server.root, "inner")
    inner.commit({"in.py": "1\n"})
    case.repository.add_submodule("../inner.git", "in", of=inner)
    commit = case.repository.commit({"a": "1\n"})
    (case.work / "in" / "in.py").write_text("2\n")
    (case.work / "a").write_text("2\n")
    into = await case.fetch(commit, case.changes("--submodule=diff"))
    assert ((into / "in" / "in.py").read_text(), (into / "a").read_text()) == ("2\n", "2\n")


async def test_changes_that_do_not_fit_are_refused(case: Case):
    commit = case.repository.commit({"a": "1\n"})
    case.repository.commit({"a": "2\n"})
    (case.work / "a").write_text("3\n")
    with pytest.raises(ItemError, match=rf"diff\.patch does not fit the commit {commit}") as caught:
        await case.fetch(commit, case.changes())
    assert caught.value.reason is Reason.JOB_INVALID
    assert "a: patch does not apply" in str(caught.value)


NEW_FILE = """\
diff --git a/{name} b/{name}
new file mode 100644
--- /dev/null
+++ b/{name}
@@ -0,0 +1 @@
+evil
"""


@pytest.mark.parametrize("name", ["../evil", "link/evil", ".git/evil", "/x/../evil"])
async def test_changes_outside_of_the_code_are_refused(case: Case, name: str):
    (case.work / "link").symlink_to(case.folder)
    commit = case.repository.commit({"a": "1\n"})
    with pytest.raises(ItemError, match="does not fit"):
        await case.fetch(commit, NEW_FILE.format(name=name))
    assert not list(case.folder.rglob("evil"))


async def test_words_that_are_no_changes_are_refused(case: Case):
    commit = case.repository.commit({"a": "1\n"})
    with pytest.raises(ItemError, match="does not fit"):
        await case.fetch(commit, "hello\n")
