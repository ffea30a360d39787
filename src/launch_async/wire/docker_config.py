"""Docker's login format: the entries of a `config.json`, and folders with one for other programs.

buildx, buildctl and docker find logins in the folder that DOCKER_CONFIG names. A password in an
argument would be in every process list; in a folder of the user's it would stay.

    async with docker_config_folder(root, logins, images) as folder:
        ... env={"DOCKER_CONFIG": str(folder)}            # gone after the block
"""

import base64
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async.domain.image import DOCKER_HUB, ImageRef
from launch_async.ports.images import RegistryLogin, RegistryLogins

IDENTITY_TOKEN_USER = "<token>"  # noqa: S105 - a name
"""The user name by which Docker's credential helpers say that the password is an OAuth2 refresh
token [source: docker/cli, credentials/native_store.go]."""

_HUB_KEY = "https://index.docker.io/v1/"
_PREFIX = "docker-config-"
_TAKEN_OVER = ("cli-plugins", "contexts", "buildx")
"""What programs look for beside `config.json`."""
_LOGIN_KEYS = frozenset({"auths", "credsStore", "credHelpers"})

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def config_key(host: str) -> str:
    """What a registry is called in `auths` and to credential helpers."""
    return _HUB_KEY if host == DOCKER_HUB else host


def auth_entry(login: RegistryLogin) -> dict[str, str]:
    """A login as `auths` holds it; secret."""
    password = login.password.reveal()
    if login.username == IDENTITY_TOKEN_USER:
        return {"identitytoken": password}
    return {"auth": base64.b64encode(f"{login.username}:{password}".encode()).decode()}


def engine_auth(login: RegistryLogin) -> dict[str, str]:
    """A login as the engine's API takes it, before its base64 (`X-Registry-Auth`); secret."""
    password = login.password.reveal()
    if login.username == IDENTITY_TOKEN_USER:
        return {"identitytoken": password}
    return {"username": login.username, "password": password}


def user_config_folder(environ: Mapping[str, str]) -> Path:
    """The user's own folder: DOCKER_CONFIG, else `~/.docker`."""
    return Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


async def auths_of(logins: RegistryLogins, images: Iterable[ImageRef]) -> dict[str, dict[str, str]]:
    """The `auths` of a `config.json` with the logins of these images' registries; secret.

    Docker keeps one login a host: where two images ask for two, the first one's counts.

    Raises:
        ItemError, Unavailable: as `RegistryLogins.login`.
    """
    found: dict[str, RegistryLogin] = {}
    for image in images:
        login = await logins.login(image)
        if login is not None and found.setdefault(config_key(image.host), login) != login:
            log.warning("one login a registry: that of another image is used", image=image.name)
    return {host: auth_entry(login) for host, login in found.items()}


@asynccontextmanager
async def docker_config_folder(
    root: Path,
    logins: RegistryLogins,
    images: Iterable[ImageRef],
    *,
    like: Path | None = None,
) -> AsyncGenerator[Path, None]:
    """A folder below `root` with the logins of these images' registries; deleted after the block.

    `like` is the user's own folder: its plug-ins, contexts and settings hold here too, its logins
    do not.

    Raises:
        ItemError, Unavailable: as `auths_of`.
    """
    auths = await auths_of(logins, images)
    folder = await anyio.to_thread.run_sync(partial(_make, root, auths, like=like))
    try:
        yield folder
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


def remove_left_folders(root: Path) -> int:
    """Delete what a killed life left below `root`; only while nobody else uses it. Blocks."""
    left = list(root.glob(f"{_PREFIX}*"))
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return len(left)


def _make(root: Path, auths: Mapping[str, Mapping[str, str]], *, like: Path | None) -> Path:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))  # made with mode 0700
    try:
        content = {**(_settings_of(like) if like else {}), "auths": auths}
        descriptor = os.open(folder / "config.json", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(content))
        if like is not None:
            for name in _TAKEN_OVER:
                if (like / name).is_dir():
                    (folder / name).symlink_to((like / name).absolute())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _settings_of(folder: Path) -> dict[str, Any]:
    """The user's settings without logins; one that cannot be read has none."""
    with suppress(OSError, msgspec.MsgspecError):
        content = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
        return {key: value for key, value in content.items() if key not in _LOGIN_KEYS}
    return {}
