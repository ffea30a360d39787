"""The logins of Docker's own `config.json`: in the file itself, or with a credential helper.

```
credHelpers[host], else credsStore  ->  docker-credential-NAME get, the host on its stdin
auths[host]                         ->  user name and password, or an identity token
```

[source: docker/cli, cli/config; docker/docker-credential-helpers]
"""

import base64
import os
import re
import signal
import subprocess
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from launch_async.adapters.registries.denials import unusable
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import DOCKER_HUB, ImageRef
from launch_async.domain.secret import Secret
from launch_async.kit.renewed import Renewed
from launch_async.ports.images import RegistryLogin
from launch_async.wire.docker_config import IDENTITY_TOKEN_USER, config_key, user_config_folder

HELPER_TIMEOUT_SECONDS = 30.0
HELPER_LIFETIME_SECONDS = 60.0
"""How long a helper's answer is believed; it names no time itself."""
MAX_FILE_BYTES = 1 << 20
MAX_OUTPUT_BYTES = 1 << 16
MAX_KEPT = 256

_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_FOUND = re.compile(rb"credentials not found", re.IGNORECASE)
_VERSION = re.compile(r"/v[12]/?$")


class _Entry(msgspec.Struct, frozen=True):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _File(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _Entry] | None = None
    creds_store: str | None = None
    cred_helpers: dict[str, str] | None = None


class _Helped(msgspec.Struct, frozen=True, rename="pascal"):
    username: str
    secret: str


class DockerConfigLogins:
    """Reads the file at each use, so that `docker login` is noticed."""

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        helper_timeout_seconds: float = HELPER_TIMEOUT_SECONDS,
    ) -> None:
        """The folder is that of DOCKER_CONFIG in `environ`, else the user's."""
        self._environ = os.environ if environ is None else environ
        self._helper_timeout_seconds = helper_timeout_seconds
        self._helped: OrderedDict[tuple[str, str], Renewed[RegistryLogin | None]] = OrderedDict()

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        """As the port says."""
        path = user_config_folder(self._environ) / "config.json"
        content = await anyio.to_thread.run_sync(_read, path)
        if content is None:
            return None
        try:
            read = msgspec.json.decode(content, type=_File)
        except msgspec.MsgspecError:
            remedy = f"Correct {path}, which `docker login` writes."
            raise unusable(image.host, "Docker's configuration cannot be read", remedy) from None
        key = config_key(image.host)
        helper = (read.cred_helpers or {}).get(key) or read.creds_store
        found = await self._from_helper(helper, key) if helper else None
        return found or _from_file(image, read.auths or {}, path)

    async def _from_helper(self, helper: str, key: str) -> RegistryLogin | None:
        kept = self._helped.get((helper, key))
        if kept is None:
            kept = self._helped[helper, key] = Renewed(partial(self._ask, helper, key))
            if len(self._helped) > MAX_KEPT:
                self._helped.popitem(last=False)
        self._helped.move_to_end((helper, key))
        return await kept.get()

    async def _ask(self, helper: str, key: str) -> tuple[RegistryLogin | None, float]:
        program = f"docker-credential-{helper}"
        if not _HELPER.fullmatch(helper):
            raise unusable(key, f"{helper!r} is no name of a helper", "Correct config.json.")
        try:
            with anyio.fail_after(self._helper_timeout_seconds):
                code, output = await _run(program, key, self._environ)
        except TimeoutError:
            msg = f"{program} did not answer in {self._helper_timeout_seconds:.0f} s"
            raise Unavailable(msg) from None
        except OSError as error:
            why = f"{program} cannot be run ({error.strerror})"
            remedy = "Install it on the agent's PATH, or take it out of config.json."
            raise unusable(key, why, remedy) from None
        if code != 0 and _NOT_FOUND.search(output):
            return None, HELPER_LIFETIME_SECONDS
        try:
            answer = msgspec.json.decode(output if code == 0 else b"", type=_Helped)
        except msgspec.MsgspecError:
            # Its words are not shown: a login may be among them.
            why = f"{program} gave no login (exit code {code})"
            remedy = f"Try it as the agent's user: echo {key} | {program} get"
            failure = unusable(key, why, remedy)
        else:
            if not answer.secret:
                return None, HELPER_LIFETIME_SECONDS
            username = answer.username or IDENTITY_TOKEN_USER
            login = RegistryLogin(username=username, password=Secret(answer.secret))
            return login, HELPER_LIFETIME_SECONDS
        raise failure


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)[:MAX_FILE_BYTES]
    except FileNotFoundError:
        return None
    except OSError as error:
        why = f"{path} cannot be read ({error.strerror})"
        raise unusable("in Docker's configuration", why, "Let the agent's user read it.") from None


async def _run(program: str, text: str, environ: Mapping[str, str]) -> tuple[int, bytes]:
    """Exit code and output of a helper; it never outlives the call."""
    output = bytearray()
    async with await anyio.open_process(
        [program, "get"],
        stderr=subprocess.DEVNULL,
        env=environ,
        start_new_session=True,
    ) as process:
        try:
            if process.stdin is not None and process.stdout is not None:
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await process.stdin.send(f"{text}\n".encode())
                await process.stdin.aclose()
                async for chunk in process.stdout:
                    output += chunk
                    if len(output) > MAX_OUTPUT_BYTES:
                        raise unusable(text, f"{program} prints without an end", "Repair it.")
            return await process.wait(), bytes(output)
        except BaseException:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # its own children as well
            raise


def _from_file(image: ImageRef, auths: Mapping[str, _Entry], path: Path) -> RegistryLogin | None:
    """The entry that says most: Docker names hosts, podman also repositories below them."""
    named = {_plain(key): entry for key, entry in auths.items()}
    repository = image.name
    while repository:
        if repository in named:
            return _login_of(image, named[repository], path)
        repository = repository.rpartition("/")[0]
    return None


def _plain(key: str) -> str:
    """`https://index.docker.io/v1/` is `docker.io`."""
    name = _VERSION.sub("", key.partition("://")[2] if "://" in key else key).rstrip("/")
    host, slash, rest = name.partition("/")
    return f"{DOCKER_HUB if host in _HUB_HOSTS else host}{slash}{rest}"


def _login_of(image: ImageRef, entry: _Entry, path: Path) -> RegistryLogin | None:
    if entry.identitytoken:
        return RegistryLogin(username=IDENTITY_TOKEN_USER, password=Secret(entry.identitytoken))
    username, password = entry.username or "", entry.password or ""
    if entry.auth:
        try:
            text = base64.b64decode(entry.auth, validate=True).decode()
        except ValueError:
            text = ""
        username, _, password = text.partition(":")
        if not username or not password:
            remedy = f"Log in anew with `docker login`, or correct {path}."
            raise unusable(image.host, "`auth` of its entry is no user name and password", remedy)
    if username and password:
        return RegistryLogin(username=username, password=Secret(password))
    if entry.registrytoken:
        remedy = "Log in with a user name and a password, or an identity token."
        raise unusable(image.host, "`registrytoken` is not supported", remedy)
    return None
