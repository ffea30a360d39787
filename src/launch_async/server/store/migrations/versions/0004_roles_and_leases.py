"""Roles, service accounts, run keys and the audit trail; pauses, limits, leases and identities."""

import sqlalchemy as sa
from alembic import op

from launch_async.server.store.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and change those that are there."""
    _people()
    _queues()
    _run_keys()
    _audit_log()


def _people() -> None:
    # Columns are added in place, never by Alembic's copy of a table: SQLite deletes the old one's
    # rows first, and with them all that refers to them.
    op.add_column(
        "users", sa.Column("service", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column(
        "memberships",
        sa.Column("role", sa.String(length=8), nullable=False, server_default="member"),
    )
    op.execute(sa.text("UPDATE memberships SET role = 'admin' WHERE admin"))
    op.drop_column("memberships", "admin")


def _queues() -> None:
    op.add_column("run_queues", sa.Column("paused_at", UtcDateTime(), nullable=True))
    op.add_column("run_queues", sa.Column("concurrency_limit", sa.Integer(), nullable=True))
    op.add_column("launch_agents", sa.Column("identity", sa.String(length=128), nullable=True))
    op.create_index(
        op.f("ix_launch_agents_project_id_identity"),
        "launch_agents",
        ["project_id", "identity"],
        unique=True,
    )
    op.add_column("queue_items", sa.Column("own_resource_args", sa.Text(), nullable=True))
    op.add_column("queue_items", sa.Column("requeued_from", sa.Integer(), nullable=True))
    op.add_column("queue_items", sa.Column("lease", sa.String(length=32), nullable=True))
    op.add_column(
        "queue_items",
        sa.Column("stop_requested", sa.Boolean(), nullable=False, server_default=sa.false()),
    )


def _run_keys() -> None:
    op.create_table(
        "run_keys",
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["item_id"],
            ["queue_items.id"],
            name=op.f("fk_run_keys_item_id_queue_items"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_run_keys_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_run_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_run_keys_digest")),
    )


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("username", sa.String(length=128), nullable=False),
        sa.Column("entity_name", sa.String(length=128), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_audit_log_entity_name_id"), "audit_log", ["entity_name", "id"], unique=False
    )
