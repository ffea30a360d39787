"""Runs git: with few protocols, no hooks, no prompts, passwords only in its environment, an end.

What the agent's user has set up for git and ssh (helpers, an ssh agent, proxies) goes on to work.
"""

import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
from anyio.abc import ByteReceiveStream

from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.git import GitLogin, GitRemote, GitSettings, masked
from launch_async.domain.secret import Secret
from launch_async.kit.tail import ByteTail

SHOWN_LINES = 8
_READ_LINES = 200
_LAST_WORDS_SECONDS = 1.0
"""A connection that ssh keeps open for others holds our pipe too, after git has ended."""

_PASSED_ON = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "LD_LIBRARY_PATH"}
    | {"http_proxy", "https_proxy", "no_proxy", "all_proxy"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}
    | {"SSH_AUTH_SOCK", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_ASKPASS"}
    | {"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_NO_VERIFY", "GIT_EXEC_PATH"}
    | {"KRB5CCNAME", "KRB5_CONFIG"}
)
_PASSED_ON_PREFIX = "GIT_CONFIG_"
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.autocrlf": "false",
    "init.templateDir": "",
    "init.defaultBranch": "main",
    "advice.detachedHead": "false",
    "submodule.recurse": "false",
    "gc.auto": "0",  # these two would go on after git has ended
    "maintenance.auto": "false",
}
_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$USER" "$PASSWORD"; }; f'
)


class GitFailed(Exception):
    """git ended with another code than 0."""

    def __init__(self, said: Sequence[str]) -> None:
        super().__init__("\n".join(said[-SHOWN_LINES:]))
        self.text = "\n".join(said)
        """Its last lines, without passwords."""


class Git:
    """git for one remote, in one folder."""

    def __init__(
        self,
        folder: Path,
        remote: GitRemote,
        settings: GitSettings,
        *,
        environ: Mapping[str, str],
        login: Secret[str] | None = None,
    ) -> None:
        """`login` is what the job brings for this remote; the settings' own is second.

        Raises:
            ItemError: a password of the settings cannot be read.
        """
        self.folder = folder
        logins = logins_for(remote, settings, environ, login)
        self._secrets = [password for _, _, password in logins]
        self._options = _options([server for server, _, _ in logins])
        self._environment = _environment(settings, environ, folder)
        for number, (_, user, password) in enumerate(logins):
            self._environment[_variable("USER", number)] = user
            self._environment[_variable("PASSWORD", number)] = password.reveal()

    async def __call__(self, *arguments: str) -> str:
        """Run git to its end and give what it printed; cancelled, all its processes are killed.

        Raises:
            GitFailed: it ended with another code than 0.
            ItemError: there is no git.
        """
        answer, words = ByteTail(), ByteTail()
        code = await self._run(["git", *self._options, *arguments], answer, words)
        if code != 0:
            raise GitFailed([self._hidden(line) for line in words.lines(_READ_LINES)])
        return "\n".join(answer.lines(_READ_LINES))

    async def _run(self, argv: Sequence[str], answer: ByteTail, words: ByteTail) -> int:
        try:
            process = await anyio.open_process(
                argv,
                cwd=self.folder,
                env=self._environment,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            msg = "git is not installed where the agent runs, or not in its PATH: install it there"
            raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE) from error
        try:
            return await _heard(process, answer, words)
        except BaseException:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # git's own children as well
            raise
        finally:
            await process.aclose()

    def _hidden(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret.reveal(), "***")
        return masked(line)


async def _heard(process: anyio.abc.Process, answer: ByteTail, words: ByteTail) -> int:
    assert process.stdout is not None  # noqa: S101 - both are pipes
    assert process.stderr is not None  # noqa: S101
    async with anyio.create_task_group() as readers:
        ended = [anyio.Event(), anyio.Event()]
        readers.start_soon(_read, process.stdout, answer, ended[0], name="git answers")
        readers.start_soon(_read, process.stderr, words, ended[1], name="git says")
        await process.wait()
        with anyio.move_on_after(_LAST_WORDS_SECONDS):
            for end in ended:
                await end.wait()
        readers.cancel_scope.cancel()
    return process.returncode or 0


async def _read(stream: ByteReceiveStream, tail: ByteTail, ended: anyio.Event) -> None:
    async for piece in stream:
        tail.feed(piece)
    ended.set()


def logins_for(
    remote: GitRemote,
    settings: GitSettings,
    environ: Mapping[str, str],
    own: Secret[str] | None,
) -> list[tuple[str, str, Secret[str]]]:
    """Server, user and password; the first for a server counts.

    Raises:
        ItemError: a password of the settings cannot be read.
    """
    found: dict[str, tuple[str, str, Secret[str]]] = {}
    if own is not None and remote.server is not None:
        user, _, password = own.reveal().partition(":")
        found[remote.server] = (remote.server, user, Secret(password))
    for login in settings.credentials:
        for scheme in ("https", "http") if settings.allow_http else ("https",):
            server = f"{scheme}://{login.host.lower()}"
            if server not in found:
                found[server] = (server, login.username, _password(login, environ))
    return list(found.values())


def _password(login: GitLogin, environ: Mapping[str, str]) -> Secret[str]:
    where = login.password_file or f"the variable {login.password_env}"
    try:
        if login.password_file:
            password = Path(login.password_file).expanduser().read_text(encoding="utf-8").strip()
        else:
            password = environ.get(login.password_env, "").strip()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise _no_password(login, f"{where} cannot be read ({why})") from error
    if not password or not password.isprintable():
        raise _no_password(login, f"{where} is empty or holds more than one line")
    return Secret(password)


def _no_password(login: GitLogin, why: str) -> ItemError:
    msg = f"the agent's git login for {login.host} cannot be used: {why}; correct it at the agent"
    return ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE)


def _options(servers: Sequence[str]) -> list[str]:
    """`-c` for each setting: they hold in the processes that git starts, too."""
    chosen = list(_SETTINGS.items())
    for number, server in enumerate(servers):
        helper = _HELPER.replace("$USER", f"${_variable('USER', number)}")
        helper = helper.replace("$PASSWORD", f"${_variable('PASSWORD', number)}")
        # The empty one forgets the user's own helpers, which would keep what is not theirs.
        chosen += [(f"credential.{server}.helper", ""), (f"credential.{server}.helper", helper)]
    return [word for name, value in chosen for word in ("-c", f"{name}={value}")]


def _variable(kind: str, number: int) -> str:
    return f"LAUNCH_ASYNC_GIT_{kind}_{number}"


def _environment(settings: GitSettings, environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    passed_on = {
        name: value
        for name, value in environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)
    }
    ours = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:ssh:http" if settings.allow_http else "https:ssh",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "LC_ALL": "C",  # what it says is read by machine
    }
    if settings.ca_file:
        ours["GIT_SSL_CAINFO"] = str(Path(settings.ca_file).expanduser())
    ssh = _ssh_options(settings)
    if ssh:
        command = environ.get("GIT_SSH_COMMAND") or "ssh"
        ours["GIT_SSH_COMMAND"] = f"{command} {shlex.join(ssh)}"
    return passed_on | ours


def _ssh_options(settings: GitSettings) -> list[str]:
    chosen: list[str] = []
    if settings.ssh_key_file:
        key = _ssh_path(settings.ssh_key_file)
        chosen += ["-o", f"IdentityFile={key}", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    if settings.known_hosts_file:
        hosts = _ssh_path(settings.known_hosts_file)
        chosen += ["-o", f"UserKnownHostsFile={hosts}", "-o", "StrictHostKeyChecking=yes"]
    return chosen


def _ssh_path(path: str) -> str:
    """As ssh reads it in an option: spaces part words there, and `%` begins a token."""
    return f'"{Path(path).expanduser()}"'.replace("%", "%%")
