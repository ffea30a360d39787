"""What runs leave behind: projects, runs, their lines and their files."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

from launch_async.server.store.tables import (
    JsonDocument,
    UtcDateTime,
    document_of,
    metadata,
)
from launch_async.server.store.tables.texts import Bounded

projects = Table(
    "projects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("entity_id", Integer, ForeignKey("entities.id", ondelete="CASCADE"), nullable=False),
    Column("name", Bounded(128), nullable=False),
    Column("name_folded", Bounded(256), nullable=False),  # agents write names in lower case
    Column("description", Text, nullable=True),
    Column("access", Bounded(32), nullable=True),
    Column("created_by", Integer, ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("entity_id", "name_folded"),
    sqlite_autoincrement=True,
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", Integer, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Bounded(128), nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=True),
    Column("notes", Text, nullable=True),
    Column("group_name", Text, nullable=True),
    Column("job_type", Text, nullable=True),
    Column("sweep_name", Text, nullable=True),
    Column("host", Text, nullable=True),
    Column("program", Text, nullable=True),
    Column("repo", Text, nullable=True),
    Column("git_commit", Text, nullable=True),
    Column("tags", Text, nullable=False),  # JSON list
    Column("config", Text, nullable=False),  # JSON object
    Column("summary", Text, nullable=False),  # JSON object
    # As a database's own functions can read it; null: as the column without "plain".
    Column("config_plain", Text, nullable=True),
    Column("summary_plain", Text, nullable=True),
    # What runs are filtered and ordered by; PostgreSQL keeps it taken apart.
    Column("config_document", JsonDocument, Computed(document_of("config")), nullable=True),
    Column("summary_document", JsonDocument, Computed(document_of("summary")), nullable=True),
    Column("state", Bounded(16), nullable=False),
    Column("exit_code", Integer, nullable=True),
    Column("stop_requested", Boolean, nullable=False),
    Column("user_id", Integer, ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=True),
    Column("history_lines", Integer, nullable=False),
    Column("event_lines", Integer, nullable=False),
    Column("console_lines", Integer, nullable=False),
    Column("last_step", BigInteger, nullable=False),  # -1: none yet
    Column("history_keys", Text, nullable=False),  # JSON object, kept as lines arrive
    UniqueConstraint("project_id", "name"),
    Index(None, "project_id", "created_at"),
    sqlite_autoincrement=True,
)

live_run = runs.c.state.in_([literal_column("'running'"), literal_column("'preempting'")])
"""Whether a run is heard of. A statement that holds this very condition, words and all, may use the
index below. It holds no time of the last word, as that changes with each one."""

Index("ix_runs_live", runs.c.id, sqlite_where=live_run, postgresql_where=live_run)

run_history = Table(
    "run_history",
    metadata,
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("step", BigInteger, nullable=True),
    Column("body", Text, nullable=False),
    Index(None, "run_id", "step"),
    sqlite_with_rowid=False,
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)

run_console = Table(
    "run_console",
    metadata,
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)

run_files = Table(
    "run_files",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("name", Bounded(1024), nullable=False),
    Column("size", BigInteger, nullable=True),  # null: not uploaded yet
    Column("md5", Bounded(32), nullable=True),  # hex
    Column("created_at", UtcDateTime, nullable=False),
    Column("uploaded_at", UtcDateTime, nullable=True),
    UniqueConstraint("run_id", "name"),
    sqlite_autoincrement=True,
)

run_alerts = Table(
    "run_alerts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("severity", Bounded(8), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)
