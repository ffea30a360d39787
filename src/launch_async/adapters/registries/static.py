"""Logins from the agent's settings: each with its password in a variable or a file of its own."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio.to_thread
import msgspec

from launch_async.adapters.registries.denials import unusable
from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.ports.images import RegistryLogin

MAX_PASSWORD_BYTES = 1 << 16


class StaticLogin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One login, with its password in exactly one place."""

    host: str
    """Registry as HOST or HOST:PORT; `docker.io` for Docker Hub."""
    repository: str = ""
    """Repository, or the folder of several, that it is for; empty: all of the registry."""
    username: str
    password_env: str = ""
    """Name of the agent's variable that holds the password."""
    password_file: str = ""
    """File that holds the password and nothing else."""

    def __post_init__(self) -> None:
        """What the fields say only together."""
        if bool(self.password_env) == bool(self.password_file):
            msg = f"the login for {self.host} needs either password_env or password_file"
            raise ValueError(msg)


class StaticLogins:
    """Reads the password at each use, so that a new one counts at once."""

    def __init__(
        self, logins: Sequence[StaticLogin], environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        # The longest repository first: it says most.
        self._logins = sorted(logins, key=lambda one: len(one.repository), reverse=True)

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        """As the port says."""
        for one in self._logins:
            if one.host == image.host and _is_within(image.repository, one.repository):
                password = await self._password(one)
                return RegistryLogin(username=one.username, password=Secret(password))
        return None

    async def _password(self, one: StaticLogin) -> str:
        if one.password_file:
            password = await anyio.to_thread.run_sync(_read, one)
            where = f"the file {one.password_file}"
        else:
            password = self._environ.get(one.password_env, "")
            where = f"the variable {one.password_env}"
        if not password:
            raise unusable(one.host, f"{where} is empty", "Put the password there.")
        return password


def _is_within(repository: str, folder: str) -> bool:
    folder = folder.strip("/")
    return not folder or repository == folder or repository.startswith(f"{folder}/")


def _read(one: StaticLogin) -> str:
    try:
        with Path(os.path.expanduser(one.password_file)).open("rb") as file:  # noqa: PTH111 - no error
            return file.read(MAX_PASSWORD_BYTES).decode().strip("\r\n")
    except OSError as error:
        why = error.strerror
    except UnicodeDecodeError:
        why = "it is no text"
    remedy = "Put the password there, and let the agent's user read it."
    raise unusable(one.host, f"the file {one.password_file} cannot be read ({why})", remedy)
