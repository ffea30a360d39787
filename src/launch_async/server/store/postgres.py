"""PostgreSQL's side of the store: how it is reached and spoken to."""

import time
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from launch_async.domain.errors import ConfigError

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


def _check(dsn: str) -> None:
    try:
        parts = urlsplit(dsn)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(
            "the database URL cannot be read: it is postgresql://USER@HOST:PORT/DATABASE, and "
            "signs such as / # ? @ in a user or password are written as %2F %23 %3F %40"
        ) from error


def _note_return(_connection: Any, record: Any) -> None:
    record.info["returned"] = time.monotonic()


def _look_alive(connection: Any, record: Any, _proxy: Any) -> None:
    """Ask a connection that lay unused whether its server is still there.

    SQLAlchemy's own check asks at each use, three round trips that cost more than a statement.
    Where one was closed, the others are likely to be, too.
    """
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError("the server closed this connection")
    if time.monotonic() - record.info.get("returned", time.monotonic()) < UNSEEN_SECONDS:
        return
    try:
        connection.ping()
    except Exception as error:
        raise DisconnectionError("the server closed an unused connection") from error
