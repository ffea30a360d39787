"""Code that a pod fetches by itself: what the agent gives to its container, and what that does.

```
agent   FetchedCode --> an order in a variable, what opens the door in the run's Secret
pod     launch-async fetch-code: empty the folder, fetch, check, let the run write to it
```
Both are the same version, or near: unknown parts of an order are left alone.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async import __version__
from launch_async.adapters.runners.kubernetes.injection import CodeFetch
from launch_async.adapters.sources.git import GitCode
from launch_async.adapters.sources.git_process import logins_for
from launch_async.adapters.sources.wandb import WandbJobStore
from launch_async.config.login import find_login
from launch_async.domain.errors import ConfigError, ItemError, Reason, Unavailable
from launch_async.domain.git import GitRemote, GitSettings
from launch_async.domain.job import ArtifactSource, GitSource
from launch_async.domain.secret import Secret
from launch_async.images.starting import write_start
from launch_async.ports.runner import CODE_DIRECTORY, FetchedCode
from launch_async.wire.network import CA_VARIABLES, ca_file_of
from launch_async.wire.transport import Transport

CODE_IMAGE = "launch-async/agent"
ORDER_VARIABLE = "LAUNCH_ASYNC_CODE"
ACCESS_VARIABLE = "LAUNCH_ASYNC_CODE_ACCESS"
MAX_FILE_BYTES = 64 << 10
"""Of a key or of certificates: a variable holds 128 KiB."""
PATIENCE_SECONDS = 300.0
"""How long an outage may keep the code from the pod."""
_PAUSE_SECONDS = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class FetchOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be fetched; no secrets."""

    source: ArtifactSource | GitSource
    installs: bool = False
    git_seconds: float = 600.0
    allow_http: bool = False


class FetchAccess(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What opens the door to it; texts of files, as files of the agent are not in the pod."""

    git_login: str = ""
    """`USER:PASSWORD` for the remote."""
    ssh_key: str = ""
    known_hosts: str = ""
    git_ca: str = ""
    api_ca: str = ""

    def __repr__(self) -> str:
        """As a `Secret` shows itself."""
        return "FetchAccess(***)"


class CodeContainers:
    """Implements the Kubernetes runner's `CodeFetches` with the agent's own git settings."""

    def __init__(self, image: str, git: GitSettings, environ: Mapping[str, str]) -> None:
        """`image` empty: the published one of this version."""
        self._image = image or f"{CODE_IMAGE}:{__version__}"
        self._git = git
        self._environ = environ

    async def fetch_of(self, code: FetchedCode) -> CodeFetch:
        """The container; raises ItemError where the pod could not be let in."""
        access = await anyio.to_thread.run_sync(access_of, code.source, self._git, self._environ)
        order = FetchOrder(
            source=_without_login(code.source),
            installs=code.installs,
            git_seconds=self._git.timeout_seconds,
            allow_http=self._git.allow_http,
        )
        return CodeFetch(
            image=self._image,
            command=("launch-async", "fetch-code"),
            environment={ORDER_VARIABLE: msgspec.json.encode(order).decode()},
            secrets={ACCESS_VARIABLE: Secret(msgspec.json.encode(access).decode())},
            working_directory=f"{CODE_DIRECTORY}/{code.working_dir}".rstrip("/"),
        )


def access_of(
    source: ArtifactSource | GitSource, git: GitSettings, environ: Mapping[str, str]
) -> FetchAccess:
    """What the agent uses itself for this source, and no more; reads files.

    Raises:
        ItemError: a file cannot be read, or over ssh there is none.
    """
    ca = ca_file_of(environ)
    # The system's own, which is large, the image has too.
    api_ca = _text(ca, CA_VARIABLES[0]) if ca is not None and _is_small(ca) else ""
    if isinstance(source, ArtifactSource):
        return FetchAccess(api_ca=api_ca)
    remote = GitRemote.parse(source.remote, allow_http=git.allow_http)
    if remote.server is None:
        return FetchAccess(
            ssh_key=_file(git.ssh_key_file, "agent.git.ssh_key_file"),
            known_hosts=_file(git.known_hosts_file, "agent.git.known_hosts_file"),
            api_ca=api_ca,
        )
    own = source.login or remote.login
    found = {
        server: f"{user}:{password.reveal()}"
        for server, user, password in logins_for(remote, git, environ, own)
    }
    return FetchAccess(
        git_login=found.get(remote.server, ""),
        git_ca=_file(git.ca_file, "agent.git.ca_file") if git.ca_file else "",
        api_ca=api_ca,
    )


async def fetch_code(into: Path, environ: Mapping[str, str]) -> None:
    """What the variables say goes into the folder, which is emptied first.

    Raises:
        ConfigError: there is no order, no key or no address.
        ItemError: the code is missing or broken, or its requirements cannot be read.
        Unavailable: the service or the remote has not answered for long.
    """
    order, access = _read(environ, ORDER_VARIABLE), _read_access(environ)
    with tempfile.TemporaryDirectory(prefix="launch-fetch-") as folder:
        files = _Files(Path(folder), access)
        login = find_login(environ, home=Path(folder), working_dir=Path(folder))
        git = GitCode(files.git_settings(order), environ=environ)
        async with Transport.open(
            base_url=login.base_url,
            api_key=login.api_key,
            ca_file=files.api_ca or ca_file_of(environ),
        ) as transport:
            await _insist(WandbJobStore(transport, git), _source_of(order, access), into)
    if order.installs:
        await anyio.to_thread.run_sync(write_start, into)
    await anyio.to_thread.run_sync(_open_to_all, into)


class _Files:
    """What is a text in the Secret, as files of their own for as long as the folder lasts."""

    def __init__(self, folder: Path, access: FetchAccess) -> None:
        self._folder = folder
        self.ssh_key = self._write("key", access.ssh_key)
        self.known_hosts = self._write("hosts", access.known_hosts)
        self.git_ca = self._write("git-ca.pem", access.git_ca)
        self.api_ca = self._write("api-ca.pem", access.api_ca)

    def git_settings(self, order: FetchOrder) -> GitSettings:
        return GitSettings(
            timeout_seconds=order.git_seconds,
            allow_http=order.allow_http,
            ssh_key_file=str(self.ssh_key or ""),
            known_hosts_file=str(self.known_hosts or ""),
            ca_file=str(self.git_ca or ""),
        )

    def _write(self, name: str, text: str) -> Path | None:
        if not text:
            return None
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
        return path


async def _insist(jobs: WandbJobStore, source: ArtifactSource | GitSource, into: Path) -> None:
    deadline = anyio.current_time() + PATIENCE_SECONDS
    while True:
        own = await anyio.to_thread.run_sync(_emptied, into)
        try:
            await jobs.fetch(source, own)
        except Unavailable as error:
            pause = error.retry_after_seconds or _PAUSE_SECONDS
            if anyio.current_time() + pause >= deadline:
                raise
            log.warning("the code cannot be had, trying again", why=str(error))
            await anyio.sleep(pause)
        else:
            await anyio.to_thread.run_sync(_move_up, own)
            return


def _move_up(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(folder.parent / path.name)
    folder.rmdir()


def _emptied(folder: Path) -> Path:
    """A folder of our own in it, all else of an earlier try gone.

    The volume itself belongs to root, and git works in no folder of somebody else's.
    """
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return Path(tempfile.mkdtemp(prefix=".launch-async-", dir=folder))


def _open_to_all(folder: Path) -> None:
    """The run may be another user, who writes to its code like the one who fetched it."""
    for here, _, names in os.walk(folder):
        for path in (Path(here), *(Path(here, name) for name in names)):
            if path.is_symlink() or path == folder:
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            may_execute = 0o111 if mode & stat.S_IXUSR else 0
            path.chmod(mode | 0o666 | may_execute)


def _source_of(order: FetchOrder, access: FetchAccess) -> ArtifactSource | GitSource:
    source = order.source
    if isinstance(source, GitSource) and access.git_login:
        return msgspec.structs.replace(source, login=Secret(access.git_login))
    return source


def _without_login(source: ArtifactSource | GitSource) -> ArtifactSource | GitSource:
    if isinstance(source, GitSource):
        return msgspec.structs.replace(source, login=None)
    return source


def _read(environ: Mapping[str, str], name: str) -> FetchOrder:
    try:
        return msgspec.json.decode(environ[name], type=FetchOrder)
    except (KeyError, msgspec.MsgspecError) as error:
        msg = f"{name} holds no order: this command is for containers that the agent makes"
        raise ConfigError(msg) from error


def _read_access(environ: Mapping[str, str]) -> FetchAccess:
    try:
        return msgspec.json.decode(environ.get(ACCESS_VARIABLE) or "{}", type=FetchAccess)
    except msgspec.MsgspecError:
        # Its text would show what is in it.
        raise ConfigError(f"{ACCESS_VARIABLE} is not what the agent makes it") from None


def _file(path: str, setting: str) -> str:
    if not path:
        raise ItemError(
            f"A pod that fetches code over ssh needs {setting}, as it has no ssh set-up of its own:"
            " let the agent's operator set it, give the job an https remote, or build its image.",
            reason=Reason.SOURCE_UNAVAILABLE,
        )
    return _text(Path(path).expanduser(), setting)


def _text(path: Path, setting: str) -> str:
    try:
        if not _is_small(path):
            raise ItemError(
                f"{setting} has more than {MAX_FILE_BYTES >> 10} KiB, which is too much for a pod"
                " that fetches code: name a file with what it needs alone.",
                reason=Reason.SOURCE_UNAVAILABLE,
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ItemError(
            f"{setting} cannot be read ({why}): correct it at the agent.",
            reason=Reason.SOURCE_UNAVAILABLE,
        ) from error


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= MAX_FILE_BYTES
