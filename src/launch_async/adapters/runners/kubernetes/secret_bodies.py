"""The Secrets of a run, owned by its object: the cluster removes them with it, so none can stay.
So is that of a Job of the agent's own.

They are made after the object, whose uid they name; a pod that is quicker waits for them.
"""

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from launch_async.adapters.runners.kubernetes.injection import FETCH_KEY_PREFIX, CodeFetch
from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.adapters.runners.kubernetes.names import (
    MANAGED_BY,
    MANAGED_LABEL,
    pull_secret_name,
    run_labels,
    services_secret_name,
)
from launch_async.domain.secret import Secret
from launch_async.ports.images import RegistryLogin
from launch_async.ports.runner import LaunchOrder
from launch_async.wire.docker_config import config_key

_LOGINS_TYPE = "kubernetes.io/dockerconfigjson"


def secret_body(
    manifest: Manifest, order: LaunchOrder, owner_uid: str, *, fetch: CodeFetch | None = None
) -> dict[str, Any]:
    """The Secret with the run's secret variables, each under its name; it holds them plainly."""
    values = {name: secret.reveal() for name, secret in order.secrets.items()}
    if fetch is not None:
        for name, secret in fetch.secrets.items():
            values[f"{FETCH_KEY_PREFIX}{name}"] = secret.reveal()
    metadata = _metadata(manifest, order, manifest.name, owner_uid)
    return _secret(metadata, "Opaque", values)


def services_secret_body(manifest: Manifest, order: LaunchOrder, owner_uid: str) -> dict[str, Any]:
    """The Secret of what runs beside the run, and its owner: with the run's secret variables."""
    values = {name: secret.reveal() for name, secret in order.secrets.items()}
    metadata = _metadata(manifest, order, services_secret_name(manifest.name), owner_uid)
    return _secret(metadata, "Opaque", values)


def pull_secret_body(
    manifest: Manifest, order: LaunchOrder, owner_uid: str, logins: Mapping[str, RegistryLogin]
) -> dict[str, Any]:
    """The Secret with logins by registry (HOST or HOST:PORT), for the nodes that pull images."""
    metadata = _metadata(manifest, order, pull_secret_name(manifest.name), owner_uid)
    return {
        **_secret(metadata, _LOGINS_TYPE, {}),
        "data": pull_secret_data(logins),
    }


def own_secret_body(
    namespace: str, name: str, values: Mapping[str, Secret[str]], *, owner: Mapping[str, str]
) -> dict[str, Any]:
    """The Secret with the logins of a Job of the agent's own; `owner` is the reference to it."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {MANAGED_LABEL: MANAGED_BY},
        "ownerReferences": [dict(owner)],
    }
    return _secret(metadata, _LOGINS_TYPE, {key: one.reveal() for key, one in values.items()})


def pull_secret_data(logins: Mapping[str, RegistryLogin]) -> dict[str, str]:
    """What is in it."""
    auths: dict[str, dict[str, str]] = {}
    for host, login in logins.items():
        password = login.password.reveal()
        auths[config_key(host)] = {
            "username": login.username,
            "password": password,
            "auth": _base64(f"{login.username}:{password}"),
        }
    document = msgspec.json.encode({"auths": auths}).decode()
    return {".dockerconfigjson": _base64(document)}


def _metadata(manifest: Manifest, order: LaunchOrder, name: str, owner_uid: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": manifest.namespace,
        "labels": {**run_labels(order.origin), MANAGED_LABEL: MANAGED_BY},
        "ownerReferences": [manifest.owner_reference(owner_uid)],
    }


def _secret(metadata: dict[str, Any], kind: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": kind,
        "data": {key: _base64(value) for key, value in values.items()},
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
