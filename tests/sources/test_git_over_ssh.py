"""Git jobs over ssh, from a real sshd: keys, host keys, and who may not."""

import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
import pytest

from git_servers import SSHD, SSHD_REMEDY, Repository, SshServer, make_ssh_key, ssh_server
from launch_async.adapters.sources.git import GitCode
from launch_async.domain.errors import ItemError, Unavailable
from launch_async.domain.git import GitSettings
from launch_async.domain.job import GitSource

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[SshServer]:
    if SSHD is None:
        if os.environ.get("CI") == "true":
            pytest.fail(SSHD_REMEDY, pytrace=False)
        pytest.skip(f"no sshd: {SSHD_REMEDY}")
    async with ssh_server(tmp_path / "ssh") as running:
        yield running


def settings(server: SshServer, **changes: str) -> GitSettings:
    chosen = {
        "ssh_key_file": str(server.key_file),
        "known_hosts_file": str(server.known_hosts_file),
    }
    return GitSettings(**(chosen | changes))


async def fetch(source: GitSource, chosen: GitSettings, folder: Path, **environ: str) -> str:
    folder.mkdir()
    known = {"PATH": os.environ["PATH"], "HOME": str(folder.parent)} | environ
    await GitCode(chosen, environ=known, pause_seconds=0.01).fetch(source, folder)
    return (folder / "a").read_text()


async def test_a_key_opens_the_repository_and_its_submodules(server: SshServer, tmp_path: Path):
    repository, inner = Repository(server.root, "code"), Repository(server.root, "inner")
    inner.commit({"in.py": "1"})
    repository.add_submodule("../inner.git", "in", of=inner)
    repository.commit({"a": "1"})
    source = GitSource(server.remote(repository), "main")
    assert await fetch(source, settings(server), tmp_path / "into") == "1"
    assert (tmp_path / "into" / "in" / "in.py").read_text() == "1"


async def test_the_short_form_of_a_remote_and_the_users_own_ssh_are_used(
    server: SshServer, tmp_path: Path
):
    repository = Repository(server.root, "code")
    commit = repository.commit({"a": "1"})
    shutil.copy(server.known_hosts_file, tmp_path / "known")
    shutil.copy(server.key_file, tmp_path / "key")
    command = f"ssh -p {server.port} -i {tmp_path}/key -o UserKnownHostsFile={tmp_path}/known"
    source = GitSource(f"{server.user}@127.0.0.1:{repository.served}", commit)
    found = await fetch(source, GitSettings(), tmp_path / "into", GIT_SSH_COMMAND=command)
    assert found == "1"


async def test_a_server_with_an_unknown_host_key_is_refused(server: SshServer, tmp_path: Path):
    repository = Repository(server.root, "code")
    repository.commit({"a": "1"})
    (tmp_path / "empty").touch()
    source = GitSource(server.remote(repository), "main")
    chosen = settings(server, known_hosts_file=str(tmp_path / "empty"))
    with pytest.raises(ItemError, match="has an ssh host key that the agent does not know; add it"):
        await fetch(source, chosen, tmp_path / "into")


async def test_a_key_that_opens_nothing_is_refused(server: SshServer, tmp_path: Path):
    repository = Repository(server.root, "code")
    repository.commit({"a": "1"})
    other = tmp_path / "other"
    make_ssh_key(other)
    source = GitSource(server.remote(repository), "main")
    with pytest.raises(ItemError, match="refused the agent's login; give the agent"):
        await fetch(source, settings(server, ssh_key_file=str(other)), tmp_path / "into")


@asynccontextmanager
async def ssh_agent(key_file: Path) -> AsyncGenerator[str]:
    """The socket of an ssh agent that holds the key."""
    with tempfile.TemporaryDirectory(prefix="ssh-") as folder:  # sockets have short paths
        socket = f"{folder}/agent"
        async with await anyio.open_process(
            ["ssh-agent", "-D", "-a", socket], stdout=PIPE, stderr=DEVNULL
        ) as process:
            try:
                with anyio.fail_after(10):
                    assert process.stdout is not None
                    await process.stdout.receive()
                    environ = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": socket}
                    await anyio.run_process(["ssh-add", "-q", str(key_file)], env=environ)
                yield socket
            finally:
                process.terminate()


async def test_no_other_key_is_tried_than_the_one_that_is_set(server: SshServer, tmp_path: Path):
    repository = Repository(server.root, "code")
    repository.commit({"a": "1"})
    other = tmp_path / "other"
    make_ssh_key(other)
    source = GitSource(server.remote(repository), "main")
    async with ssh_agent(server.key_file) as socket:
        chosen = settings(server, ssh_key_file="")
        found = await fetch(source, chosen, tmp_path / "by-agent", SSH_AUTH_SOCK=socket)
        assert found == "1"
        chosen = settings(server, ssh_key_file=str(other))
        with pytest.raises(ItemError, match="refused the agent's login; give the agent"):
            await fetch(source, chosen, tmp_path / "into", SSH_AUTH_SOCK=socket)


async def test_a_repository_that_is_not_there_is_named(server: SshServer, tmp_path: Path):
    remote = f"ssh://{server.user}@127.0.0.1:{server.port}/none.git"
    with pytest.raises(ItemError, match=r"/none\.git is not there, or"):
        await fetch(GitSource(remote, "main"), settings(server), tmp_path / "into")


async def test_a_server_that_is_away_is_an_outage(server: SshServer, tmp_path: Path):
    source = GitSource(f"ssh://{server.user}@127.0.0.1:1/r.git", "main")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await fetch(source, settings(server), tmp_path / "into")
