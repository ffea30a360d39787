"""What the server's requests and background work share, opened once."""

import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio.to_thread
import msgspec

from launch_async.server.blobs import BlobInfo, Blobs
from launch_async.server.settings import Settings
from launch_async.server.store import Store
from launch_async.server.urls import UrlSigner

SECRET_BYTES = 32


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The open resources of one server process."""

    settings: Settings
    store: Store
    blobs: Blobs
    signer: UrlSigner

    async def close(self) -> None:
        """Close the database."""
        await self.store.close()


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload must be for its key to take it."""

    md5_hex: str | None = None
    """None: anything."""

    settled: bool = False
    """The key has its bytes already and they never change: the upload is read and dropped."""


class UploadRule(msgspec.Struct, frozen=True):
    """What stands behind the keys that begin with the same word."""

    expect: Callable[[Services, str], Awaitable[Expected]]
    """Asked before an upload to a key; raises an ApiError when the key takes none any more."""

    uploaded: Callable[[Services, str, BlobInfo], Awaitable[None]]
    """Told of each upload that is complete."""


async def open_services(settings: Settings) -> Services:
    """Open the database (migrated first), the blobs and the signing secret."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = await anyio.to_thread.run_sync(_keep_secret, settings.data_dir / "secret")
    blobs = Blobs.open(settings.blobs())
    store = await Store.open(settings.database())
    signer = UrlSigner(secret, lifetime_seconds=settings.url_lifetime_seconds)
    return Services(settings=settings, store=store, blobs=blobs, signer=signer)


def _keep_secret(path: Path) -> bytes:
    """Return the secret in `path`; the first start makes it, readable by its owner only."""
    if not path.exists():
        # Written whole before it has its name: a start that is killed leaves no half of a secret.
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another server process was faster
            path.hardlink_to(fresh)
        fresh.unlink()
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"{path} is not a whole secret; delete it to have a new one made")
    return secret
