"""Why a server cannot start on a database: one line with the remedy, and without the password."""

from typing import Final
from urllib.parse import urlsplit

from alembic.util import CommandError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from launch_async.domain.errors import ConfigError
from launch_async.server.store.faults import sqlstate_of
from launch_async.server.store.postgres import CONNECT_SECONDS, is_postgres

UNDEFINED_DATABASE: Final = "3D000"
REFUSED_LOGIN: Final = ("28P01", "28000")
NO_PRIVILEGE: Final = "42501"


def check_url(url: str) -> None:
    """Raise a ConfigError for a URL of no database that we can keep things in."""
    if is_postgres(url):
        return
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        parts = None
    if parts is None or parts.get_backend_name() != "sqlite":
        raise ConfigError(
            "the database URL is neither sqlite:///PATH nor postgresql://USER@HOST:PORT/DATABASE"
        )
    if parts.database in {None, "", ":memory:"}:
        raise ConfigError("SQLite in memory keeps nothing; give a file with sqlite:///PATH")


def unusable(url: str, error: Exception) -> ConfigError:
    """Return the error for a database that could not be opened or brought up to date."""
    if isinstance(error, CommandError):
        return ConfigError(
            "the database was made by a newer launch-async than this one; "
            f"install that one again ({_words(error)})"
        )
    return _postgres(url, error) if is_postgres(url) else _sqlite(url, error)


def _sqlite(url: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"the SQLite database {make_url(url).database} cannot be used ({_words(error)}); give a "
        "file that this user may write, with --data or the database URL"
    )


def _postgres(url: str, error: Exception) -> ConfigError:
    parts = urlsplit(url)
    place = f"{parts.hostname or 'the local socket'}:{parts.port or 5432}"
    name = parts.path.lstrip("/") or parts.username or "?"
    state = sqlstate_of(error) if isinstance(error, DBAPIError) else ""
    if state == UNDEFINED_DATABASE:
        return ConfigError(f"PostgreSQL at {place} has no database {name!r}: createdb {name}")
    if state in REFUSED_LOGIN:
        user = parts.username or "?"
        return ConfigError(
            f"PostgreSQL at {place} does not let user {user!r} in; check the user, and the "
            "password in PGPASSWORD, in ~/.pgpass or in the database URL"
        )
    if state == NO_PRIVILEGE:
        return ConfigError(
            f"user {parts.username!r} may not make tables in database {name!r}; make that user "
            f"its owner: ALTER DATABASE {name} OWNER TO {parts.username}"
        )
    if isinstance(error, OSError | TimeoutError):
        return ConfigError(
            f"no PostgreSQL answers at {place} ({_words(error)}); start it, or mend the host and "
            "port of the database URL"
        )
    return ConfigError(f"the database {name!r} at {place} cannot be used: {_words(error)}")


def _words(error: Exception) -> str:
    """Return what happened in one line, without SQL and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, TimeoutError):
        return f"nothing within {CONNECT_SECONDS} s"
    lines = str(getattr(cause, "strerror", None) or cause).splitlines()
    return lines[0].rpartition(">: ")[2] if lines else type(cause).__name__
