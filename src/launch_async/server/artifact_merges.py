"""One manifest out of several: an addition to another version, or the parts of several runs."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_manifests import (
    FULL,
    INCREMENTAL,
    Manifest,
    ManifestRow,
    uploaded_manifests,
)
from launch_async.server.artifact_rows import COMMITTED, ArtifactRow, artifact_by_number
from launch_async.server.errors import ApiError

DIGEST_BEGINS = b"wandb-artifact-manifest-v1\n"


class _Document(msgspec.Struct, rename="camel"):
    """A manifest whose entries are kept as they were written."""

    contents: dict[str, msgspec.Raw]
    version: int = 1
    storage_policy: str = "wandb-storage-policy-v1"
    storage_policy_config: dict[str, Any] = {}


async def sources_of(
    connection: AsyncConnection, row: ArtifactRow, uploaded: Sequence[ManifestRow]
) -> list[ManifestRow]:
    """Return the manifests that make up a version; entries of a later one take the earlier's place.

    The newest of a version says how: a FULL one stands alone, an INCREMENTAL one behind its base,
    PATCHes count all.
    """
    newest = uploaded[-1]
    if newest.kind == FULL:
        return [newest]
    if newest.kind != INCREMENTAL:
        return [each for each in uploaded if each.kind == newest.kind]
    if newest.base_artifact_id is None:
        return [newest]
    base = await artifact_by_number(connection, newest.base_artifact_id)
    below = [] if base is None else await uploaded_manifests(connection, base.id)
    if base is None or base.state != COMMITTED or not below:
        raise ApiError("the version that this one adds to was deleted; log the whole artifact")
    if base.collection.entity_id != row.collection.entity_id:
        raise ApiError("a version can only add to one of the same entity; log the whole artifact")
    return [below[-1], newest]


def merge(documents: Sequence[bytes]) -> bytes:
    """Return the manifest that holds what all of these hold."""
    contents: dict[str, msgspec.Raw] = {}
    try:
        parts = [msgspec.json.decode(document, type=_Document) for document in documents]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the artifact's manifest cannot be read: {error}") from error
    for part in parts:
        contents |= part.contents
    return msgspec.json.encode(msgspec.structs.replace(parts[-1], contents=contents))


def digest_of(manifest: Manifest) -> str:
    """Return the digest of a version that holds this, as the client computes it."""
    md5 = hashlib.md5(DIGEST_BEGINS, usedforsecurity=False)
    for name in sorted(manifest.contents):
        md5.update(f"{name}:{manifest.contents[name].digest}\n".encode())
    return md5.hexdigest()
