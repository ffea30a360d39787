"""Who may ask: users, the entities that own things, memberships and keys."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, Text, false

from launch_async.server.store.tables import UtcDateTime, metadata
from launch_async.server.store.tables.texts import Bounded

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", Bounded(128), nullable=False, unique=True),
    Column("name", Bounded(256), nullable=False),
    Column("email", Bounded(320), nullable=True),
    Column("admin", Boolean, nullable=False),
    Column("service", Boolean, nullable=False, server_default=false()),
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

entities = Table(
    "entities",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Bounded(128), nullable=False, unique=True),
    Column("kind", Bounded(8), nullable=False),  # user or team
    Column(
        "user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=True, unique=True
    ),
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

memberships = Table(
    "memberships",
    metadata,
    Column("user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "entity_id",
        Integer,
        ForeignKey("entities.id", ondelete="CASCADE"),
        primary_key=True,
        index=True,
    ),
    Column("role", Bounded(8), nullable=False, server_default="member"),  # viewer, member or admin
    Column("created_at", UtcDateTime, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("digest", Bounded(64), nullable=False, unique=True),  # SHA-256, hex
    Column("hint", Bounded(8), nullable=False),  # last characters, for people to tell keys apart
    Column("description", Bounded(256), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime, nullable=True),
    sqlite_autoincrement=True,
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("username", Bounded(128), nullable=False),  # names, as the trail outlives its subjects
    Column("entity_name", Bounded(128), nullable=True),  # null: the server's own matters
    Column("action", Bounded(64), nullable=False),  # such as queue.pause
    Column("subject", Bounded(256), nullable=False),
    Column("details", Text, nullable=False),  # JSON object
    Index(None, "entity_name", "id"),
    sqlite_autoincrement=True,
)
