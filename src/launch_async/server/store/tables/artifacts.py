"""Artifacts: types, collections, versions, their files, and the runs that made or used them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)

from launch_async.server.store.tables import UtcDateTime, metadata
from launch_async.server.store.tables.texts import Bounded

artifact_types = Table(
    "artifact_types",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", Integer, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Bounded(128), nullable=False),
    Column("description", Text, nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("project_id", "name"),
    sqlite_autoincrement=True,
)

artifact_collections = Table(
    "artifact_collections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", Integer, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("type_id", Integer, ForeignKey("artifact_types.id"), nullable=False),
    Column("name", Bounded(128), nullable=False),
    Column("kind", Bounded(16), nullable=False, server_default="SEQUENCE"),  # or PORTFOLIO
    Column("description", Text, nullable=True),
    Column("next_version", Integer, nullable=False),  # never given twice, not even after a delete
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=True),
    UniqueConstraint("project_id", "name"),
    Index(None, "type_id"),
    sqlite_autoincrement=True,
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "collection_id",
        Integer,
        ForeignKey("artifact_collections.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("state", Bounded(16), nullable=False),
    Column("version_index", Integer, nullable=True),  # given by the commit
    Column("digest", Bounded(128), nullable=False),
    Column("digest_algorithm", Bounded(32), nullable=False),
    Column("client_id", Bounded(256), nullable=True),
    Column("distributed_id", Bounded(256), nullable=True),  # shared by runs that make one version
    Column("description", Text, nullable=True),
    Column("metadata", Text, nullable=True),  # JSON text as the client gave it
    Column("labels", Text, nullable=True),
    Column("ttl_seconds", BigInteger, nullable=True),  # null: inherited; negative: for ever
    Column("expires_at", UtcDateTime, nullable=True, index=True),
    Column("history_step", BigInteger, nullable=True),
    Column("size", BigInteger, nullable=False),
    Column("file_count", Integer, nullable=False),
    Column("wanted_aliases", Text, nullable=False),  # JSON list, put on by the commit
    Column("created_by", Integer, ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=True),
    UniqueConstraint("collection_id", "version_index"),
    Index(None, "collection_id", "digest"),
    Index(None, "client_id"),
    Index(None, "state", "created_at"),
    sqlite_autoincrement=True,
)

artifact_links = Table(
    "artifact_links",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "collection_id",
        Integer,
        ForeignKey("artifact_collections.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column(
        "artifact_id",
        Integer,
        ForeignKey("artifacts.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("version_index", Integer, nullable=True),  # null until the version is committed
    Column("wanted_aliases", Text, nullable=False),  # JSON list, put on by the commit
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("collection_id", "artifact_id"),
    UniqueConstraint("collection_id", "version_index"),
    sqlite_autoincrement=True,
)

artifact_aliases = Table(
    "artifact_aliases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "collection_id",
        Integer,
        ForeignKey("artifact_collections.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column(
        "artifact_id",
        Integer,
        ForeignKey("artifacts.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("alias", Bounded(128), nullable=False),
    UniqueConstraint("collection_id", "alias"),
    sqlite_autoincrement=True,
)

artifact_tags = Table(
    "artifact_tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("artifact_id", Integer, ForeignKey("artifacts.id", ondelete="CASCADE"), nullable=False),
    Column("name", Bounded(128), nullable=False),
    UniqueConstraint("artifact_id", "name"),
    sqlite_autoincrement=True,
)

artifact_collection_tags = Table(
    "artifact_collection_tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "collection_id",
        Integer,
        ForeignKey("artifact_collections.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("name", Bounded(128), nullable=False),
    UniqueConstraint("collection_id", "name"),
    sqlite_autoincrement=True,
)

artifact_manifests = Table(
    "artifact_manifests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "artifact_id",
        Integer,
        ForeignKey("artifacts.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("name", Bounded(256), nullable=False),
    Column("kind", Bounded(16), nullable=False),  # FULL, INCREMENTAL or PATCH
    Column("base_artifact_id", Integer, nullable=True),  # what an INCREMENTAL one adds to
    Column("digest", Bounded(128), nullable=False),  # base64 MD5; empty until the client knows it
    Column("size", BigInteger, nullable=True),  # null: not uploaded yet
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

artifact_files = Table(
    "artifact_files",
    metadata,
    Column(
        "artifact_id", Integer, ForeignKey("artifacts.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("name", Bounded(1024), primary_key=True),
    Column("digest", Bounded(512), nullable=False),  # base64 MD5, or whatever names a reference
    Column("md5", Bounded(32), nullable=True),  # hex; null for a reference
    Column("size", BigInteger, nullable=False),
    Column("birth_artifact", Bounded(64), nullable=True),
    Column("ref", Text, nullable=True),
    Index(None, "md5"),
)

artifact_blobs = Table(
    "artifact_blobs",
    metadata,
    Column("entity_id", Integer, ForeignKey("entities.id", ondelete="CASCADE"), primary_key=True),
    Column("md5", Bounded(32), primary_key=True),  # hex
    Column("size", BigInteger, nullable=True),
    Column("present", Boolean, nullable=False),  # the bytes are here and have this MD5
    Column("artifact_id", Integer, nullable=False),  # the first that stored it; may be gone by now
    # Part of the key: bytes that are stored again after they were swept never meet their sweeper.
    Column("edition", Bounded(16), nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
    # Since when it may be nobody's; null: a committed version was seen to hold it.
    Column("loose_since", UtcDateTime, nullable=True, index=True),
)

artifact_pending_blobs = Table(
    "artifact_pending_blobs",
    metadata,
    Column(
        "artifact_id", Integer, ForeignKey("artifacts.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("md5", Bounded(32), primary_key=True),  # hex; what a PENDING version is going to hold
    Index(None, "md5"),
)

artifact_uploads = Table(
    "artifact_uploads",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("entity_id", Integer, ForeignKey("entities.id", ondelete="CASCADE"), nullable=False),
    Column("md5", Bounded(32), nullable=False),  # hex, of the whole
    Column("parts_digest", Bounded(64), nullable=False),  # tells apart how a content is cut
    Column("touched_at", UtcDateTime, nullable=False, index=True),
    Column("joining_since", UtcDateTime, nullable=True),  # somebody puts the parts together
    UniqueConstraint("entity_id", "md5", "parts_digest"),
    sqlite_autoincrement=True,
)

artifact_upload_parts = Table(
    "artifact_upload_parts",
    metadata,
    Column(
        "upload_id",
        Integer,
        ForeignKey("artifact_uploads.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("number", Integer, primary_key=True),
    Column("md5", Bounded(32), nullable=False),  # hex
    Column("size", BigInteger, nullable=True),  # null: not uploaded yet
)

blob_garbage = Table(
    "blob_garbage",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Bounded(256), nullable=False),  # of a blob that nothing refers to any more
    sqlite_autoincrement=True,
)

artifact_runs = Table(
    "artifact_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("artifact_id", Integer, ForeignKey("artifacts.id", ondelete="CASCADE"), nullable=False),
    # By name, not by id: artifacts outlive the runs that made them.
    Column("project_id", Integer, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("run_name", Bounded(128), nullable=False),
    Column("role", Bounded(8), nullable=False),  # input or output
    Column("used_as", Bounded(128), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("artifact_id", "project_id", "run_name", "role"),
    Index(None, "project_id", "run_name", "role"),
    sqlite_autoincrement=True,
)
