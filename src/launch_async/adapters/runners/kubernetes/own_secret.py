"""The Secret of a Job of the agent's own: it is gone with the Job, so none can stay."""

import base64
from collections.abc import Mapping

from launch_async.adapters.runners.kubernetes.names import MANAGED_BY, MANAGED_LABEL
from launch_async.domain.secret import Secret
from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import KubeRefused


async def give_secret(
    api: KubeCluster,
    namespace: str,
    name: str,
    data: Mapping[str, Secret[str]],
    *,
    owner: Mapping[str, str],
) -> None:
    """Make it, or change what it holds: never deleted, as a pod may be about to read it.

    `owner` is the reference to the Job.

    Raises:
        KubeRefused, Unavailable: as `KubeCluster.create`.
    """
    path = f"/api/v1/namespaces/{namespace}/secrets"
    metadata = {"labels": {MANAGED_LABEL: MANAGED_BY}, "ownerReferences": [dict(owner)]}
    content = {
        key: base64.b64encode(value.reveal().encode()).decode() for key, value in data.items()
    }
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "type": "kubernetes.io/dockerconfigjson",
        "data": content,
    }
    try:
        await api.create(path, body)
    except KubeRefused as error:
        if not error.exists:
            raise
    else:
        return
    await api.patch(f"{path}/{name}", {"metadata": metadata, "data": content})
