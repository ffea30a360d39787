"""Uploads a folder of small files as one artifact version, in the steps of W&B's own client."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from launch_async.wire import sdk_operations as operations
from launch_async.wire.codec import decode_upload_headers
from launch_async.wire.transport import Transport

MANIFEST_NAME = "wandb_manifest.json"
STORAGE_LAYOUT = "V2"


class NewArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact version to be: files by their path in it."""

    entity: str
    project: str
    type: str
    name: str
    files: Mapping[str, bytes]
    metadata: Mapping[str, Any] = {}


async def log_artifact(transport: Transport, artifact: NewArtifact) -> str:
    """The id of the committed version; the same content again gives the same version.

    Raises:
        RequestRefused, Unavailable, AgentUnfit: as the transport.
    """
    digests = {name: _md5(content) for name, content in sorted(artifact.files.items())}
    created = await transport.execute(
        operations.CREATE_ARTIFACT, {"input": _create_input(artifact, digests)}
    )
    made = created["createArtifact"]["artifact"]
    artifact_id: str = made["id"]
    if made["state"] == "COMMITTED":
        return artifact_id
    manifest = _manifest(artifact, digests, artifact_id)
    manifest_id = await _send_manifest(transport, artifact, artifact_id, digest="", content=None)
    await _send_files(transport, artifact, digests, (artifact_id, manifest_id))
    await _send_manifest(
        transport, artifact, artifact_id, digest=_base64(_md5(manifest)), content=manifest
    )
    await transport.execute(operations.COMMIT_ARTIFACT, {"artifactID": artifact_id})
    return artifact_id


def _create_input(artifact: NewArtifact, digests: Mapping[str, bytes]) -> dict[str, Any]:
    digest = _manifest_digest(digests)
    return {
        "entityName": artifact.entity,
        "projectName": artifact.project,
        "artifactTypeName": artifact.type,
        "artifactCollectionName": artifact.name,
        "digest": digest,
        "digestAlgorithm": "MANIFEST_MD5",
        "aliases": [{"artifactCollectionName": artifact.name, "alias": "latest"}],
        "metadata": msgspec.json.encode(artifact.metadata).decode(),
        "enableDigestDeduplication": True,
        "clientID": f"{artifact.name}-{digest}",
    }


async def _send_files(
    transport: Transport,
    artifact: NewArtifact,
    digests: Mapping[str, bytes],
    ids: tuple[str, str],
) -> None:
    artifact_id, manifest_id = ids
    wanted = [
        {
            "artifactID": artifact_id,
            "artifactManifestID": manifest_id,
            "name": name,
            "md5": _base64(digest),
        }
        for name, digest in digests.items()
    ]
    answer = await transport.execute(
        operations.CREATE_ARTIFACT_FILES,
        {"input": {"artifactFiles": wanted, "storageLayout": STORAGE_LAYOUT}},
    )
    edges = answer["createArtifactFiles"]["files"]["edges"]
    for name, edge in zip(digests, edges, strict=True):
        await _put(transport, edge["node"], artifact.files[name])


async def _send_manifest(
    transport: Transport,
    artifact: NewArtifact,
    artifact_id: str,
    *,
    digest: str,
    content: bytes | None,
) -> str:
    answer = await transport.execute(
        operations.CREATE_ARTIFACT_MANIFEST,
        {
            "input": {
                "artifactID": artifact_id,
                "name": MANIFEST_NAME,
                "digest": digest,
                "entityName": artifact.entity,
                "projectName": artifact.project,
                "type": "FULL",
            }
        },
    )
    manifest = answer["createArtifactManifest"]["artifactManifest"]
    if content is not None:
        await _put(transport, manifest["file"], content)
    manifest_id: str = manifest["id"]
    return manifest_id


async def _put(transport: Transport, file: Mapping[str, Any], content: bytes) -> None:
    """No address means that the server has these bytes already."""
    if file["uploadUrl"] is not None:
        headers = decode_upload_headers(file["uploadHeaders"])
        await transport.put(file["uploadUrl"], content, headers)


def _manifest(artifact: NewArtifact, digests: Mapping[str, bytes], artifact_id: str) -> bytes:
    contents = {
        name: {
            "digest": _base64(digest),
            "size": len(artifact.files[name]),
            "birthArtifactID": artifact_id,
        }
        for name, digest in digests.items()
    }
    return msgspec.json.encode(
        {
            "version": 1,
            "storagePolicy": "wandb-storage-policy-v1",
            "storagePolicyConfig": {"storageLayout": STORAGE_LAYOUT},
            "contents": contents,
        }
    )


def _manifest_digest(digests: Mapping[str, bytes]) -> str:
    """The version's digest, as the client computes it: MD5 over a header and its entries."""
    hasher = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
    for name, digest in sorted(digests.items()):
        hasher.update(f"{name}:{_base64(digest)}\n".encode())
    return hasher.hexdigest()


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
