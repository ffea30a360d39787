"""What lies around the folder that code is fetched into has no say in it."""

import os
import tempfile
from pathlib import Path

import pytest

from git_servers import Repository, https_server, run_git
from launch_async.adapters.sources.git import GitCode
from launch_async.domain.git import GitSettings
from launch_async.domain.job import GitSource

pytestmark = pytest.mark.anyio


async def test_a_repository_around_the_agents_folders_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    around = tmp_path / "checkout"
    around.mkdir()
    run_git("init", "--quiet", cwd=around)
    monkeypatch.setattr(tempfile, "tempdir", str(around))
    into = around / "state" / "code"
    into.mkdir(parents=True)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    async with https_server(tmp_path / "https") as server:
        run_git("config", f"url.{server.url}/elsewhere/.insteadOf", f"{server.url}/", cwd=around)
        repository = Repository(server.root, "code")
        commit = repository.commit({"a": "1"})
        source = GitSource(server.remote(repository), "main")
        code = GitCode(GitSettings(ca_file=str(server.ca_file)), environ=environ)
        assert (await code.pin(source)).commit == commit
        await code.fetch(source, into)
    assert (into / "a").read_text() == "1"
