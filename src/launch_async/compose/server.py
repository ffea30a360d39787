"""The control plane with its one local user, ready to serve."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret
from launch_async.kit.files import write_atomically
from launch_async.server.app import open_services
from launch_async.server.errors import ApiError
from launch_async.server.people import list_people
from launch_async.server.services import Services
from launch_async.server.settings import Settings
from launch_async.server.users import ensure_local_user

LOCAL_USER = "local"
KEY_FILE = "api-key"


@asynccontextmanager
async def open_server(settings: Settings) -> AsyncGenerator[Services, None]:
    """The server's resources.

    Raises:
        ConfigError: the data folder cannot be used.
    """
    try:
        services = await open_services(settings)
    except OSError as error:
        msg = (
            f"the data folder {settings.data_dir} cannot be used ({error.strerror}); "
            "give one that this user may write with --data"
        )
        raise ConfigError(msg) from error
    try:
        yield services
    finally:
        with anyio.CancelScope(shield=True):
            await services.close()


async def has_users(services: Services) -> bool:
    """Whether anybody could log in."""
    async with services.store.read() as connection:
        return bool(await list_people(connection, after_id=0, limit=1))


async def local_key(services: Services, data_dir: Path) -> Secret[str]:
    """The local user's key, kept in the data folder for its owner only; made on the first start.

    Raises:
        ConfigError: what is kept there is no key.
    """
    path = data_dir / KEY_FILE
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = None
    except (OSError, UnicodeDecodeError) as error:
        raise _no_key(path) from error
    try:
        async with services.store.write() as connection:
            key = await ensure_local_user(connection, LOCAL_USER, kept)
    except ApiError as error:
        raise _no_key(path) from error
    if kept is None:
        write_atomically(path, f"{key}\n".encode())
    return Secret(key)


def _no_key(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} does not hold the key of the user {LOCAL_USER}; restore it, or delete it to get "
        "another key"
    )
