"""Code of git jobs from real servers over https: which commit, who may, and what goes wrong."""

import os
import secrets
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import anyio
import pytest

from git_servers import HttpsServer, Repository, https_server, run_git
from launch_async.adapters.sources.git import GitCode
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.git import GitLogin, GitSettings
from launch_async.domain.job import GitSource
from launch_async.domain.secret import Secret

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[HttpsServer]:
    async with https_server(tmp_path / "https") as running:
        yield running


@pytest.fixture
def repository(server: HttpsServer) -> Repository:
    return Repository(server.root, "code")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of an agent's user who has set up nothing."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


@pytest.fixture
def environ(home: Path) -> Mapping[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home)}


def git_code(server: HttpsServer, environ: Mapping[str, str], **settings: object) -> GitCode:
    chosen = GitSettings(ca_file=str(server.ca_file), **settings)
    return GitCode(chosen, environ=environ, pause_seconds=0.01)


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestCommits:
    async def test_a_commit_comes_as_it_was_without_its_history(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        repository.commit({"old.bin": secrets.token_bytes(2_000_000)})
        (repository.work / "old.bin").unlink()
        commit = repository.commit({"train.py": "print(1)", "lib/a b.py": "", ".gitignore": "x"})
        repository.commit({"train.py": "print(2)"})
        source = GitSource(server.remote(repository), commit)
        await git_code(server, environ).fetch(source, into)
        assert files_of(into) == {".gitignore": "x", "lib/a b.py": "", "train.py": "print(1)"}
        assert sorted(path.name for path in into.iterdir()) == [".gitignore", "lib", "train.py"]
        assert server.sent_bytes < 100_000

    @pytest.mark.parametrize("name", ["main", "HEAD", "refs/heads/main", "v1", "light", "a/b"])
    async def test_a_name_is_pinned_to_the_commit_that_it_has_now(
        self, server: HttpsServer, repository: Repository, environ, into: Path, name: str
    ):
        commit = repository.commit({"a": "1"})
        run_git("tag", "--annotate", "--message", "m", "v1", cwd=repository.work)
        run_git("tag", "light", cwd=repository.work)
        run_git("branch", "a/b", cwd=repository.work)
        repository.push()
        code = git_code(server, environ)
        pinned = await code.pin(GitSource(server.remote(repository), name, job_artifact_id="j"))
        assert pinned == GitSource(server.remote(repository), commit, job_artifact_id="j")
        repository.commit({"a": "2"})
        await code.fetch(pinned, into)
        assert files_of(into) == {"a": "1"}

    async def test_a_branch_goes_before_a_tag_of_the_same_name(
        self, server: HttpsServer, repository: Repository, environ
    ):
        repository.commit({"a": "1"})
        run_git("tag", "twice", cwd=repository.work)
        commit = repository.commit({"a": "2"})
        run_git("branch", "twice", cwd=repository.work)
        repository.push()
        source = GitSource(server.remote(repository), "twice")
        assert (await git_code(server, environ).pin(source)).commit == commit

    async def test_a_whole_hash_is_pinned_without_a_request(
        self, server: HttpsServer, repository: Repository, environ
    ):
        source = GitSource(server.remote(repository), "0" * 40)
        assert await git_code(server, environ).pin(source) == source
        assert server.requests == []

    async def test_the_beginning_of_a_hash_finds_its_commit(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        commit = repository.commit({"a": "1"})
        repository.commit({"a": "2"})
        await git_code(server, environ).fetch(
            GitSource(server.remote(repository), commit[:9]), into
        )
        assert files_of(into) == {"a": "1"}

    async def test_a_server_that_gives_no_single_commits_gives_all(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        server.old = True
        commit = repository.commit({"a": "1"})
        repository.commit({"a": "2"})
        await git_code(server, environ).fetch(GitSource(server.remote(repository), commit), into)
        assert files_of(into) == {"a": "1"}

    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("name", ["0" * 40, "f00dcafe", "nothing", "refs/heads/nothing"])
    async def test_what_the_remote_does_not_have_is_named(
        self,
        server: HttpsServer,
        repository: Repository,
        environ,
        into: Path,
        *,
        name: str,
        old: bool,
    ):
        server.old = old
        repository.commit({"a": "1"})
        with pytest.raises(ItemError, match=f"no commit, branch or tag {name}; push it") as caught:
            await git_code(server, environ).fetch(GitSource(server.remote(repository), name), into)
        assert caught.value.reason is Reason.SOURCE_UNAVAILABLE

    async def test_a_link_stays_a_link(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        (repository.work / "link").symlink_to("/etc/passwd")
        commit = repository.commit({})
        await git_code(server, environ).fetch(GitSource(server.remote(repository), commit), into)
        assert (into / "link").readlink() == Path("/etc/passwd")


class TestSubmodules:
    @pytest.mark.parametrize("old", [False, True])
    async def test_submodules_come_with_theirs(
        self, server: HttpsServer, repository: Repository, environ, into: Path, *, old: bool
    ):
        server.old = old
        inner, middle = Repository(server.root, "inner"), Repository(server.root, "middle")
        inner.commit({"in.py": "1"})
        middle.add_submodule("../inner.git", "in", of=inner)
        middle.commit({"mid.py": "1"})
        repository.add_submodule(server.remote(middle), "mid", of=middle)
        commit = repository.commit({"a": "1"})
        inner.commit({"in.py": "2"})
        middle.commit({"mid.py": "2"})
        await git_code(server, environ).fetch(GitSource(server.remote(repository), commit), into)
        found = files_of(into)
        assert {name: text for name, text in found.items() if ".gitmodules" not in name} == {
            "a": "1",
            "mid/in/in.py": "1",
            "mid/mid.py": "1",
        }
        assert not list(into.rglob(".git"))

    @pytest.mark.parametrize("protocol", ["file", "ext", "http", "git"])
    async def test_a_submodule_over_another_protocol_is_refused(
        self, server: HttpsServer, repository: Repository, environ, into: Path, protocol: str
    ):
        touched = into.parent / "touched"
        inner = Repository(server.root, "inner")
        inner.commit({"in.py": "1"})
        url = {"file": f"file://{inner.served}", "ext": f"ext::touch {touched}"}.get(
            protocol, f"{protocol}://127.0.0.1:{server.port}/inner.git"
        )
        repository.add_submodule(url, "in", of=inner)
        commit = repository.commit({"a": "1"})
        with pytest.raises(ItemError, match=f"submodule or a redirect over '{protocol}'") as caught:
            await git_code(server, environ).fetch(
                GitSource(server.remote(repository), commit), into
            )
        assert caught.value.reason is Reason.JOB_INVALID
        assert not touched.exists()


class TestTheUsersSetup:
    async def test_no_hook_and_no_template_of_the_agents_user_is_run(
        self, server: HttpsServer, repository: Repository, environ, home: Path, into: Path
    ):
        hooks = home / "template" / "hooks"
        hooks.mkdir(parents=True)
        for hook in ("post-checkout", "reference-transaction"):
            (hooks / hook).write_text(f"#!/bin/sh\ntouch {home}/ran\n")
            (hooks / hook).chmod(0o755)
        (home / ".gitconfig").write_text(
            f"[init]\ntemplateDir = {home}/template\n[core]\nhooksPath = {hooks}\n"
        )
        commit = repository.commit({"a": "1"})
        await git_code(server, environ).fetch(GitSource(server.remote(repository), commit), into)
        assert files_of(into) == {"a": "1"}
        assert not (home / "ran").exists()

    async def test_the_credential_helper_of_the_agents_user_is_asked(
        self, server: HttpsServer, repository: Repository, environ, home: Path, into: Path
    ):
        server.login = "me:planted-word"
        (home / ".gitconfig").write_text("[credential]\nhelper = store\n")
        (home / ".git-credentials").write_text(server.url.replace("//", f"//{server.login}@"))
        commit = repository.commit({"a": "1"})
        await git_code(server, environ).fetch(GitSource(server.remote(repository), commit), into)
        assert files_of(into) == {"a": "1"}

    async def test_a_repository_around_the_folder_is_not_touched(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        run_git("init", "--quiet", cwd=into.parent)
        before = (into.parent / ".git" / "config").read_text()
        commit = repository.commit({"a": "1"})
        patch = into.parent / "p"
        (repository.work / "a").write_text("2")
        patch.write_text(run_git("diff", "HEAD", cwd=repository.work) + "\n")
        source = GitSource(server.remote(repository), commit)
        await git_code(server, environ).fetch(source, into, patch=patch)
        assert files_of(into) == {"a": "2"}
        assert (into.parent / ".git" / "config").read_text() == before


class TestFaults:
    async def test_a_repository_that_is_not_there_is_named(
        self, server: HttpsServer, environ, into: Path
    ):
        source = GitSource(f"{server.url}/none.git", "main")
        with pytest.raises(ItemError, match=r"/none\.git is not there, or .* may not see it"):
            await git_code(server, environ).fetch(source, into)

    async def test_a_server_that_fails_for_a_moment_is_asked_again(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        commit = repository.commit({"a": "1"})
        server.fails = 1
        await git_code(server, environ).fetch(GitSource(server.remote(repository), commit), into)
        assert files_of(into) == {"a": "1"}

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_a_server_that_goes_on_failing_is_an_outage(
        self, server: HttpsServer, repository: Repository, environ, into: Path, status: int
    ):
        server.status = status
        with pytest.raises(Unavailable, match=f"cannot be reached: .*{status}"):
            await git_code(server, environ).fetch(
                GitSource(server.remote(repository), "0" * 40), into
            )
        assert len(server.requests) == 3

    async def test_a_server_that_is_away_is_an_outage(self, server: HttpsServer, environ, into):
        source = GitSource("https://127.0.0.1:1/r.git", "main")
        with pytest.raises(Unavailable, match="cannot be reached"):
            await git_code(server, environ).pin(source)

    async def test_the_authority_of_the_settings_goes_before_the_machines(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        repository.commit({"a": "1"})
        code = git_code(server, {**environ, "GIT_SSL_CAINFO": "/etc/ssl/certs/ca-certificates.crt"})
        await code.fetch(GitSource(server.remote(repository), "main"), into)
        assert files_of(into) == {"a": "1"}

    async def test_a_certificate_of_nobody_is_not_trusted(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        with pytest.raises(ItemError, match="certificate that the agent's machine does not trust"):
            await GitCode(environ=environ).pin(GitSource(server.remote(repository), "main"))

    async def test_an_agent_without_git_says_so(self, server: HttpsServer, home: Path, into: Path):
        code = git_code(server, {"PATH": str(home)})
        with pytest.raises(ItemError, match="git is not installed"):
            await code.pin(GitSource(f"{server.url}/r.git", "main"))


class TestEnds:
    async def test_a_server_that_is_silent_ends_in_time(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        server.silent = True
        code = git_code(server, environ, timeout_seconds=0.5)
        with pytest.raises(ItemError, match=r"took longer than 0\.5 s") as caught:
            await code.fetch(GitSource(server.remote(repository), "0" * 40), into)
        assert caught.value.reason is Reason.SOURCE_UNAVAILABLE
        assert not processes_about(str(server.port))

    async def test_a_cancelled_fetch_leaves_no_process(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        server.silent = True
        source = GitSource(server.remote(repository), "0" * 40)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(git_code(server, environ).fetch, source, into)
            await server.asked.wait()
            assert processes_about(str(server.port))
            began = anyio.current_time()
            tasks.cancel_scope.cancel()
        assert anyio.current_time() - began < 1
        assert not processes_about(str(server.port))


def processes_about(text: str) -> list[str]:
    """The command lines of git's processes that hold the text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "git" in words and text in words:
            found.append(words)
    return found


class TestLogins:
    PASSWORD = "planted-w0rd-Of-the-Test"

    @pytest.mark.parametrize("way", ["file", "variable", "remote"])
    async def test_a_login_is_used_and_shown_nowhere(
        self, server, repository, environ, into: Path, *, way: str, capfd, tmp_path: Path
    ):
        server.login = f"me@work:{self.PASSWORD}"
        commit = repository.commit({"a": "1"})
        inner = Repository(server.root, "inner")
        inner.commit({"in.py": "1"})
        repository.add_submodule("../inner.git", "in", of=inner)
        commit = repository.commit({"a": "1"})
        (tmp_path / "home" / ".gitconfig").write_text("[credential]\nhelper = store\n")
        (tmp_path / "password").write_text(f"{self.PASSWORD}\n")
        host = f"127.0.0.1:{server.port}"
        chosen = {
            "file": {"password_file": str(tmp_path / "password")},
            "variable": {"password_env": "GIT_WORD"},
        }
        logins = [GitLogin(host=host, username="me@work", **chosen[way])] if way in chosen else []
        own = Secret(server.login) if way == "remote" else None
        command_lines: list[str] = []
        server.on_request = lambda: command_lines.extend(processes_about(""))
        code = git_code(server, {**environ, "GIT_WORD": self.PASSWORD}, credentials=tuple(logins))
        await code.fetch(GitSource(server.remote(repository), commit, login=own), into)
        assert (into / "in" / "in.py").read_text() == "1"
        assert any("remote-https" in line for line in command_lines)
        assert not [line for line in command_lines if self.PASSWORD in line]
        (tmp_path / "password").unlink()
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in kept if self.PASSWORD.encode() in path.read_bytes()]
        assert self.PASSWORD not in "".join(capfd.readouterr())

    async def test_a_login_within_the_remote_is_taken_out_of_it(
        self, server: HttpsServer, repository: Repository, environ, into: Path, *, capfd
    ):
        server.login = "me:p@ss:word"
        commit = repository.commit({"a": "1"})
        remote = server.remote(repository).replace("//", "//me:p%40ss:word@")
        await git_code(server, environ).fetch(GitSource(remote, commit), into)
        assert files_of(into) == {"a": "1"}
        said = "".join(capfd.readouterr())
        assert "code is fetched" in said
        assert "word" not in said

    @pytest.mark.parametrize("password", [None, "wrong-planted-word"])
    async def test_who_may_not_read_is_told_so_without_the_password(
        self, server: HttpsServer, repository: Repository, environ, into: Path, password: str | None
    ):
        server.login = f"me:{self.PASSWORD}"
        own = Secret(f"me:{password}") if password else None
        source = GitSource(server.remote(repository), "main", login=own)
        with pytest.raises(ItemError, match="refused the agent's login; give the agent") as caught:
            await git_code(server, environ).fetch(source, into)
        assert caught.value.reason is Reason.SOURCE_UNAVAILABLE
        assert "planted" not in str(caught.value)

    async def test_a_login_is_for_its_own_server_only(
        self, server: HttpsServer, repository: Repository, environ, into: Path
    ):
        server.login = f"me:{self.PASSWORD}"
        login = GitLogin(host="127.0.0.1:1", username="me", password_env="GIT_WORD")
        code = git_code(server, {**environ, "GIT_WORD": self.PASSWORD}, credentials=(login,))
        with pytest.raises(ItemError, match="refused the agent's login"):
            await code.fetch(GitSource(server.remote(repository), "main"), into)

    @pytest.mark.parametrize("content", [None, "", "two\nlines"])
    async def test_a_password_that_cannot_be_used_is_the_agents_fault(
        self, server: HttpsServer, environ, into: Path, tmp_path: Path, content: str | None
    ):
        path = tmp_path / "password"
        if content is not None:
            path.write_text(content)
        login = GitLogin(host="h.example.com", username="me", password_file=str(path))
        code = git_code(server, environ, credentials=(login,))
        with pytest.raises(ItemError, match=r"git login for h\.example\.com cannot be used: /"):
            await code.pin(GitSource(f"{server.url}/r.git", "main"))
