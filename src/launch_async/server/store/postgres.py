"""PostgreSQL's side of the store: where it is, how it is spoken to, why it cannot be used."""

import time
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from launch_async.domain.errors import ConfigError
from launch_async.server.store.faults import sqlstate_of

SCHEMES: Final = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})
CONNECT_SECONDS: Final = 10
COMMAND_SECONDS: Final = 60  # past the server's own limit: for a server that fell silent
LIMITS: Final = {
    "statement_timeout": "30000",
    "lock_timeout": "15000",
    "idle_in_transaction_session_timeout": "60000",
}
SETTINGS: Final = {
    "application_name": "launch-async",
    "jit": "off",  # our statements are short; compiling them takes longer than running them
}
STATEMENTS_KEPT: Final = 500
UNSEEN_SECONDS: Final = 10  # a connection that was used later than that is trusted
UNDEFINED_DATABASE: Final = "3D000"
REFUSED_LOGIN: Final = ("28P01", "28000")
NO_PRIVILEGE: Final = "42501"


def is_postgres(url: str) -> bool:
    """Tell whether a URL means PostgreSQL."""
    return url.partition("://")[0] in SCHEMES


def open_postgres(url: str, *, connections: int, limited: bool) -> AsyncEngine:
    """Open an engine; the caller disposes of it.

    The URL is read by the driver, which takes what libpq takes: sslmode, passfile, a socket's
    folder as host, and PGPASSWORD or ~/.pgpass for the password.
    """
    dsn = "postgresql" + url[url.index("://") :]
    _check(dsn)
    try:
        engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args={
                "dsn": dsn,
                "timeout": CONNECT_SECONDS,
                "command_timeout": COMMAND_SECONDS if limited else None,
                "server_settings": SETTINGS | (LIMITS if limited else {}),
                "prepared_statement_cache_size": STATEMENTS_KEPT,
            },
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            "PostgreSQL needs the driver asyncpg: pip install 'launch-async[postgres]'"
        ) from error
    event.listen(engine.sync_engine, "checkin", _note_return)
    event.listen(engine.sync_engine, "checkout", _look_alive)
    return engine


def unusable(url: str, error: Exception) -> ConfigError:
    """Return the error for a database that a server cannot start on; it names no password."""
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


def _check(dsn: str) -> None:
    try:
        parts = urlsplit(dsn)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(
            "the database URL cannot be read: it is postgresql://USER@HOST:PORT/DATABASE, and "
            "signs such as / # ? @ in a user or password are written as %2F %23 %3F %40"
        ) from error


def _words(error: Exception) -> str:
    """Return what happened in one line, without SQL and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, TimeoutError):
        return f"nothing within {CONNECT_SECONDS} s"
    lines = str(getattr(cause, "strerror", None) or cause).splitlines()
    return lines[0].rpartition(">: ")[2] if lines else type(cause).__name__


def _note_return(_connection: Any, record: Any) -> None:
    record.info["returned"] = time.monotonic()


def _look_alive(connection: Any, record: Any, _proxy: Any) -> None:
    """Ask a connection that lay unused whether its server is still there.

    SQLAlchemy's own check asks at each use, three round trips that cost more than a statement.
    """
    if time.monotonic() - record.info.get("returned", time.monotonic()) < UNSEEN_SECONDS:
        return
    try:
        connection.ping()
    except Exception as error:
        raise DisconnectionError("the server closed an unused connection") from error
