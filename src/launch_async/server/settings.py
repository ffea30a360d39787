"""What a person may set about the control plane."""

import re
from pathlib import Path
from typing import Final

import msgspec

from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret
from launch_async.server.run_specs import RESOURCES

TYPE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one server process listens and where it keeps things."""

    data_dir: Path
    """Folder of the database, the blobs and the signing secret. Made when it is missing."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback by default: a key is all that guards the server."""

    port: int = 8080
    """Port to listen on; 0 takes a free one."""

    listen: tuple[tuple[str, int], ...] = ()
    """More (address, port) pairs, such as a Docker bridge, so that containers reach us."""

    public_url: str | None = None
    """Address that clients use, for links that we hand out. Default: each request's Host."""

    database_url: str | None = None
    """SQLAlchemy URL. Default: SQLite in `data_dir`."""

    blobs_url: str | None = None
    """Where blobs go: a folder, file://, s3://, gs:// or az://. Default: in `data_dir`."""

    admin_key: Secret[str] | None = None
    """Opens the admin API, /admin/v1/, to who holds it. None: there is no such API."""

    url_lifetime_seconds: int = 24 * 3600
    """How long a signed upload or download address is good for; as long as W&B's own."""

    artifact_grace_seconds: float = 6 * 3600.0
    """How long bytes of artifacts are kept that no version holds any more. The sweep takes them."""

    unfinished_artifact_seconds: float = 7 * 24 * 3600.0
    """Age at which a version is given up that was never committed: its upload was broken off."""

    max_request_bytes: int = 128 * 1024 * 1024
    """Largest request body, after gzip. The client sends about 10 MiB; a refusal is fatal to it."""

    run_timeout_seconds: float = 300.0
    """Silence after which a running run counts as crashed; the client is heard every 30 s."""

    run_keys: bool = True
    """Give each launched run a key of its own, which writes that run only and ends with it."""

    extra_resource_types: tuple[str, ...] = ()
    """Resource types that queues may have besides W&B's own: those of the agents' plug-ins."""

    shutdown_seconds: float = 5.0
    """How long requests under way may last after a stop."""

    @property
    def resource_types(self) -> tuple[str, ...]:
        """Every resource type that a queue or an item may have."""
        return (*RESOURCES, *self.extra_resource_types)

    def database(self) -> str:
        """Return the SQLAlchemy URL in force."""
        if self.database_url is not None:
            return self.database_url
        return f"sqlite+aiosqlite:///{self.data_dir / 'launch-async.db'}"

    def blobs(self) -> str:
        """Return the folder or URL of the blob store in force."""
        return self.blobs_url if self.blobs_url is not None else str(self.data_dir / "blobs")


def check_resource_type(name: str) -> str:
    """Return the name of a further resource type.

    Raises:
        ConfigError: no resource type is called that.
    """
    if TYPE_NAME.fullmatch(name) is None:
        msg = (
            f"{name!r} is no resource type: it has 1 to 64 letters, digits and . _ -, as the "
            "entry point of its plug-in"
        )
        raise ConfigError(msg)
    return name
