"""The launch side: queues, their resource configs, items, warnings and agents."""

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
)

from launch_async.server.store.tables import UtcDateTime, metadata
from launch_async.server.store.tables.texts import Bounded

resource_configs = Table(
    "resource_configs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "entity_id",
        Integer,
        ForeignKey("entities.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("resource", Bounded(64), nullable=False),
    Column("config", Text, nullable=False),  # JSON object {"resource_args": {resource: {}}}
    Column("template_variables", Text, nullable=False),  # JSON object by name
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

run_queues = Table(
    "run_queues",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", Integer, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Bounded(64), nullable=False),
    Column("access", Bounded(16), nullable=False),
    Column("prioritization_mode", Bounded(16), nullable=False),
    Column(
        "config_id", Integer, ForeignKey("resource_configs.id", ondelete="SET NULL"), nullable=True
    ),
    Column("external_links", Text, nullable=False),  # JSON object
    Column("paused_at", UtcDateTime, nullable=True),
    Column("concurrency_limit", Integer, nullable=True),  # leased, claimed and running items
    Column("created_by", Integer, ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("project_id", "name"),
    sqlite_autoincrement=True,
)

launch_agents = Table(
    "launch_agents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", Integer, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Bounded(64), nullable=False, unique=True),  # the id of the agent's hidden run
    Column("hostname", Bounded(256), nullable=False),
    Column("version", Bounded(64), nullable=True),
    Column("config", Text, nullable=True),  # JSON object
    Column("status", Bounded(16), nullable=False),
    Column("stop_polling", Boolean, nullable=False),
    Column("created_by", Integer, ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("identity", Bounded(128), nullable=True),  # kept by the agent over its starts
    Index(None, "project_id", "identity", unique=True),
    sqlite_autoincrement=True,
)

launch_agent_queues = Table(
    "launch_agent_queues",
    metadata,
    Column(
        "agent_id", Integer, ForeignKey("launch_agents.id", ondelete="CASCADE"), primary_key=True
    ),
    Column(
        "queue_id",
        Integer,
        ForeignKey("run_queues.id", ondelete="CASCADE"),
        primary_key=True,
        index=True,
    ),
)

queue_items = Table(
    "queue_items",
    metadata,
    Column("id", Integer, primary_key=True),  # its order is the order of the pushes
    Column("queue_id", Integer, ForeignKey("run_queues.id", ondelete="CASCADE"), nullable=False),
    Column("state", Bounded(16), nullable=False),
    Column("ended_by", Bounded(8), nullable=True),
    Column("priority", Integer, nullable=False),
    Column("run_spec", Text, nullable=False),  # JSON object
    Column("own_resource_args", Text, nullable=True),  # JSON object: the item's part of the merge
    Column("requeued_from", Integer, nullable=True),
    Column("created_by", Integer, ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("agent_id", Integer, ForeignKey("launch_agents.id", ondelete="SET NULL"), nullable=True),
    Column("leased_at", UtcDateTime, nullable=True),
    Column("lease_expires_at", UtcDateTime, nullable=True),
    Column("lease", Bounded(32), nullable=True),  # a new token at each pop
    Column("stop_requested", Boolean, nullable=False, server_default=false()),
    Column("claimed_at", UtcDateTime, nullable=True),
    Column("started_at", UtcDateTime, nullable=True),
    Column("ended_at", UtcDateTime, nullable=True),
    Column("run_name", Bounded(128), nullable=True),
    Column("run_entity", Bounded(128), nullable=False),  # where the run will be
    Column("run_project_folded", Bounded(256), nullable=False),
    Column("message", Text, nullable=True),
    Column("stage", Bounded(64), nullable=True),
    Column("file_paths", Text, nullable=False),  # JSON list
    Index(None, "queue_id", "state", "priority", "id"),
    Index(None, "queue_id", "id"),
    Index(None, "run_name"),
    sqlite_autoincrement=True,
)

open_item = queue_items.c.state.in_([literal_column("'PENDING'"), literal_column("'LEASED'")])
"""Whether an item may be popped now or once its lease has lapsed. A statement that holds this very
condition, words and all, may use the index below; no database sees it behind parameters."""

Index(
    None,
    queue_items.c.queue_id,
    queue_items.c.priority,
    queue_items.c.id,
    sqlite_where=open_item,
    postgresql_where=open_item,
)

Index(
    None,
    queue_items.c.requeued_from,
    sqlite_where=queue_items.c.requeued_from.is_not(None),
    postgresql_where=queue_items.c.requeued_from.is_not(None),
)

queue_item_warnings = Table(
    "queue_item_warnings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "item_id",
        Integer,
        ForeignKey("queue_items.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("message", Text, nullable=False),
    Column("stage", Bounded(64), nullable=False),
    Column("file_paths", Text, nullable=False),  # JSON list
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

run_keys = Table(
    "run_keys",
    metadata,
    Column("item_id", Integer, ForeignKey("queue_items.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", Bounded(64), nullable=False, unique=True),  # SHA-256, hex; the newest lease's
    Column("user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
