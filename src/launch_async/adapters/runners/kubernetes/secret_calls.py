"""Making Secrets that pods wait for or may be about to read."""

from collections.abc import Mapping
from typing import Any

from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import KubeRefused


def secret_path(namespace: str, name: str = "") -> str:
    """Of a Secret, or of all of them."""
    path = f"/api/v1/namespaces/{namespace}/secrets"
    return f"{path}/{name}" if name else path


async def ensure_secret(api: KubeCluster, body: Mapping[str, Any]) -> bytes:
    """Made, or made the same: never deleted, as a pod may be about to read it.

    Raises:
        KubeRefused, Unavailable: as `KubeCluster.create`.
    """
    metadata = body["metadata"]
    try:
        return await api.create(secret_path(metadata["namespace"]), body)
    except KubeRefused as error:
        if not error.exists:
            raise
    change = {key: body[key] for key in ("metadata", "data")}
    return await api.patch(secret_path(metadata["namespace"], metadata["name"]), change)
