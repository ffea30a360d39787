"""Artifacts, collections and files as the schema reads them: dicts with snake_case keys."""

from typing import Any

from launch_async.server.artifact_blobs import base64_of, blob_key
from launch_async.server.artifact_lists import FileRow, Page
from launch_async.server.artifact_members import MemberRow
from launch_async.server.artifact_rows import (
    ARTIFACT,
    COLLECTION,
    AliasRow,
    ArtifactRow,
    CollectionRow,
    TypeRow,
)
from launch_async.server.artifacts import TTL_INHERITED
from launch_async.server.context import Request
from launch_async.server.ids import encode_id
from launch_async.server.resolvers.projects import connection_of
from launch_async.server.storage import content_type_of

Json = dict[str, Any]


def type_shape(row: TypeRow) -> Json:
    """Shape an artifact type."""
    return {
        "row": row,
        "id": encode_id("ArtifactType", row.id),
        "name": row.name,
        "description": row.description,
        "created_at": row.created_at,
    }


def collection_shape(row: CollectionRow, *, state: str = "READY") -> Json:
    """Shape a collection."""
    kind = TypeRow(row.type_id, row.project_id, row.type_name, None, row.type_created_at)
    return {
        "row": row,
        "id": encode_id(COLLECTION, row.id),
        "name": row.name,
        "description": row.description,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "state": state,
        "project": row.project,
        "default_artifact_type": type_shape(kind),
    }


def artifact_shape(row: ArtifactRow) -> Json:
    """Shape a version. What the client's models demand is never null here."""
    collection = collection_shape(row.collection)
    return {
        "row": row,
        "id": encode_id(ARTIFACT, row.id),
        "artifact_sequence": collection,
        "artifact_type": collection["default_artifact_type"],
        "version_index": row.version_index,
        "state": row.state,
        "digest": row.digest,
        "digest_algorithm": row.digest_algorithm,
        "description": row.description,
        "metadata": row.metadata,
        "labels": row.labels,
        "ttl_duration_seconds": TTL_INHERITED if row.ttl_seconds is None else row.ttl_seconds,
        "ttl_is_inherited": row.ttl_seconds is None,
        "tags": [tag_shape(number, name) for number, name in row.tags],
        "aliases": [alias_shape(alias) for alias in row.aliases],
        "history_step": row.history_step,
        "size": row.size,
        "commit_hash": None,
        "file_count": row.file_count,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def alias_shape(row: AliasRow) -> Json:
    """Shape an alias."""
    return {
        "id": encode_id("ArtifactAlias", row.id),
        "alias": row.name,
        "artifact_collection": collection_shape(row.collection),
    }


def tag_shape(number: int, name: str) -> Json:
    """Shape a tag."""
    return {"id": encode_id("Tag", number), "name": name}


def membership_shape(row: MemberRow) -> Json:
    """Shape a version as a member of a collection."""
    return {
        "row": row.artifact,
        "id": encode_id("ArtifactCollectionMembership", row.collection.id, row.artifact.id),
        "version_index": row.version_index,
        "created_at": row.created_at,
        "aliases": [alias_shape(alias) for alias in row.aliases],
        "artifact_collection": collection_shape(row.collection),
        "artifact": artifact_shape(row.artifact),
    }


def file_shape(request: Request, artifact: ArtifactRow, row: FileRow) -> Json:
    """Shape an entry of a version; the addresses of a file carry their own permission.

    A reference's addresses are the reference itself: by that the client knows one.
    """
    key = None
    if row.md5 is not None and row.edition is not None:
        key = blob_key(artifact.collection.entity_id, row.md5, row.edition)
    url = row.ref or "" if key is None else request.urls.download(key, filename=row.name)
    return {
        "id": encode_id("ArtifactFile", artifact.id, row.md5 or row.name),
        "name": row.name,
        "display_name": row.name,
        "url": url,
        "direct_url": url,
        "size_bytes": row.size,
        "mimetype": content_type_of(row.name),
        "updated_at": artifact.updated_at,
        "md5": None if row.md5 is None else base64_of(row.md5),
        "digest": row.digest,
        "storage_path": key,
    }


def page_shape(page: Page, nodes: list[Json]) -> Json:
    """Shape a page whose cursors count its rows."""
    cursors = [str(page.start + number) for number in range(1, len(nodes) + 1)]
    return connection_of(nodes, cursors, has_next=page.has_next, total_count=page.total)


def artifacts_shape(page: Page) -> Json:
    """Shape a page of versions of several collections."""
    return page_shape(page, [artifact_shape(row) for row in page.rows])


def members_shape(page: Page) -> Json:
    """Shape a page of versions of one collection, each edge with the version's name there."""
    shaped = page_shape(page, [artifact_shape(row.artifact) for row in page.rows])
    for edge, row in zip(shaped["edges"], page.rows, strict=True):
        edge["version"] = f"v{row.version_index}"
    return shaped
