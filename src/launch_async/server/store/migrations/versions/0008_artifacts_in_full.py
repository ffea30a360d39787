"""Portfolios, shared and incremental versions, uploads in parts, and the sweep of what is left."""

import sqlalchemy as sa
from alembic import op

from launch_async.server.store.tables import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and change those that are there."""
    _columns()
    _links()
    _blobs()
    _uploads()


def _columns() -> None:
    op.add_column(
        "artifact_collections",
        sa.Column("kind", sa.String(length=16), nullable=False, server_default="SEQUENCE"),
    )
    op.add_column("artifacts", sa.Column("distributed_id", sa.String(length=256), nullable=True))
    op.add_column("artifacts", sa.Column("expires_at", UtcDateTime(), nullable=True))
    op.create_index(op.f("ix_artifacts_expires_at"), "artifacts", ["expires_at"], unique=False)
    op.create_index(
        op.f("ix_artifacts_state_created_at"), "artifacts", ["state", "created_at"], unique=False
    )
    op.add_column("artifact_manifests", sa.Column("base_artifact_id", sa.Integer(), nullable=True))


def _links() -> None:
    op.create_table(
        "artifact_links",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("artifact_id", sa.Integer(), nullable=False),
        sa.Column("version_index", sa.Integer(), nullable=True),
        sa.Column("wanted_aliases", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["artifact_collections.id"],
            name=op.f("fk_artifact_links_collection_id_artifact_collections"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["artifact_id"],
            ["artifacts.id"],
            name=op.f("fk_artifact_links_artifact_id_artifacts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact_links")),
        sa.UniqueConstraint(
            "collection_id", "artifact_id", name=op.f("uq_artifact_links_collection_id_artifact_id")
        ),
        sa.UniqueConstraint(
            "collection_id",
            "version_index",
            name=op.f("uq_artifact_links_collection_id_version_index"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_artifact_links_artifact_id"), "artifact_links", ["artifact_id"], unique=False
    )


def _blobs() -> None:
    op.add_column(
        "artifact_blobs",
        sa.Column("edition", sa.String(length=16), nullable=False, server_default=""),
    )
    op.add_column("artifact_blobs", sa.Column("loose_since", UtcDateTime(), nullable=True))
    # Which of them nobody holds was never noted: the first sweep finds out.
    op.execute(sa.text("UPDATE artifact_blobs SET loose_since = created_at"))
    op.create_index(
        op.f("ix_artifact_blobs_loose_since"), "artifact_blobs", ["loose_since"], unique=False
    )
    op.create_table(
        "artifact_pending_blobs",
        sa.Column("artifact_id", sa.Integer(), nullable=False),
        sa.Column("md5", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["artifact_id"],
            ["artifacts.id"],
            name=op.f("fk_artifact_pending_blobs_artifact_id_artifacts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("artifact_id", "md5", name=op.f("pk_artifact_pending_blobs")),
    )
    op.create_index(
        op.f("ix_artifact_pending_blobs_md5"), "artifact_pending_blobs", ["md5"], unique=False
    )
    op.create_table(
        "blob_garbage",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob_garbage")),
        sqlite_autoincrement=True,
    )


def _uploads() -> None:
    op.create_table(
        "artifact_uploads",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("md5", sa.String(length=32), nullable=False),
        sa.Column("parts_digest", sa.String(length=64), nullable=False),
        sa.Column("touched_at", UtcDateTime(), nullable=False),
        sa.Column("joining_since", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entity_id"],
            ["entities.id"],
            name=op.f("fk_artifact_uploads_entity_id_entities"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact_uploads")),
        sa.UniqueConstraint(
            "entity_id",
            "md5",
            "parts_digest",
            name=op.f("uq_artifact_uploads_entity_id_md5_parts_digest"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_artifact_uploads_touched_at"), "artifact_uploads", ["touched_at"], unique=False
    )
    op.create_table(
        "artifact_upload_parts",
        sa.Column("upload_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("md5", sa.String(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["artifact_uploads.id"],
            name=op.f("fk_artifact_upload_parts_upload_id_artifact_uploads"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload_id", "number", name=op.f("pk_artifact_upload_parts")),
    )
