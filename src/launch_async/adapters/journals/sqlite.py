"""The journal in SQLite (WAL), in the agent's state folder: one row per open item.

The folder is locked for as long as the journal is open, so that a second agent with the same
identity refuses to start. A run spec may carry a key made for its run: the file is for its owner
only (0600), and the key leaves it with the item.
"""

import fcntl
import os
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiosqlite
import anyio
import msgspec

from launch_async.domain.errors import AgentUnfit
from launch_async.domain.ids import ItemId
from launch_async.domain.secret import Secret
from launch_async.ports.journal import Entry

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
  id TEXT PRIMARY KEY,
  sequence INTEGER NOT NULL,
  phase TEXT NOT NULL,
  entry BLOB NOT NULL
);
"""
_VERSION = 1


class SqliteJournal:
    """The `Journal` port on one SQLite file."""

    def __init__(self, connection: aiosqlite.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    @asynccontextmanager
    async def open(cls, state_dir: Path) -> AsyncGenerator[Self, None]:
        """The journal of this state folder, which is made if need be and held locked.

        Raises:
            AgentUnfit: the folder cannot be used, or another agent holds it.
        """
        path = state_dir / "journal.sqlite"
        lock = _locked(state_dir)
        try:
            connection = await _opened(path)
            try:
                yield cls(connection, path)
            finally:
                with anyio.CancelScope(shield=True):
                    await connection.close()
        finally:
            os.close(lock)

    async def write(self, entry: Entry) -> None:
        """Durable before it returns."""
        await self._execute(
            "INSERT INTO items (id, sequence, phase, entry) "
            "VALUES (?1, (SELECT coalesce(max(sequence), 0) + 1 FROM items), ?2, ?3) "
            "ON CONFLICT (id) DO UPDATE SET phase = ?2, entry = ?3",
            (entry.item.id, entry.phase.value, _encoder.encode(entry)),
        )

    async def forget(self, item_id: ItemId) -> None:
        """The item is done; its key is overwritten in the file and dropped from the WAL."""
        await self._execute("DELETE FROM items WHERE id = ?", (item_id,))
        await self._execute("PRAGMA wal_checkpoint(TRUNCATE)", ())

    async def entries(self) -> Sequence[Entry]:
        """Open entries, oldest first."""
        try:
            rows = await self._connection.execute_fetchall(
                "SELECT entry FROM items ORDER BY sequence"
            )
            return [_decoder.decode(row[0]) for row in rows]
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise AgentUnfit(_broken(self._path, error)) from error

    async def _execute(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            # Fetched in the same step: a cursor that is open would lock the next checkpoint.
            await self._connection.execute_fetchall(statement, values)
        except sqlite3.Error as error:
            raise AgentUnfit(_broken(self._path, error)) from error


def _locked(state_dir: Path) -> int:
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(state_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = (
            f"the state folder {state_dir} cannot be used ({error.strerror}); "
            "set agent.state_dir to a folder that this user may write"
        )
        raise AgentUnfit(msg) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        msg = f"another agent uses the state folder {state_dir}; give each its own agent.state_dir"
        raise AgentUnfit(msg) from error
    return lock


async def _opened(path: Path) -> aiosqlite.Connection:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = await aiosqlite.connect(path, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise AgentUnfit(_broken(path, error)) from error
    try:
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=FULL")
        await connection.execute("PRAGMA secure_delete=ON")
        await _prepare(connection, path)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await connection.close()
        if isinstance(error, sqlite3.Error):
            raise AgentUnfit(_broken(path, error)) from error
        raise
    return connection


async def _prepare(connection: aiosqlite.Connection, path: Path) -> None:
    rows = list(await connection.execute_fetchall("PRAGMA user_version"))
    version = int(rows[0][0])
    if version > _VERSION:
        msg = f"{path} was written by a newer launch-async; upgrade this one or move the file away"
        raise AgentUnfit(msg)
    await connection.executescript(_SCHEMA)
    await connection.execute(f"PRAGMA user_version = {_VERSION}")


def _broken(path: Path, error: Exception) -> str:
    return f"the journal {path} cannot be used ({error}); free space, or move the file away"


def _reveal(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()  # pyright: ignore[reportUnknownVariableType]
    raise NotImplementedError(type(value).__name__)


def _restore(kind: type, value: Any) -> object:
    if kind is Secret or getattr(kind, "__origin__", None) is Secret:
        return Secret(value)
    raise NotImplementedError(kind)


_encoder = msgspec.json.Encoder(enc_hook=_reveal)
_decoder = msgspec.json.Decoder(Entry, dec_hook=_restore)
