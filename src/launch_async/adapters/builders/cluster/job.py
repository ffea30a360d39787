"""The Job of a build: its pod sees its own context alone, and the logins that it needs."""

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from launch_async.adapters.builders.cluster.contexts import ContextMount
from launch_async.adapters.builders.cluster.executors import Part
from launch_async.adapters.builders.cluster.overlay import overlaid
from launch_async.ports.cluster_jobs import ClusterJob

LOGINS_KEY = ".dockerconfigjson"
LOGINS_FILE = "config.json"

_MAX_NAME = 57
"""Pods' names have six characters more, and 63 in all."""
_HEX = 16


class SecretMount(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a Secret, as a file of the container."""

    secret: str
    key: str
    folder: str
    file: str
    variable: str = ""
    """Variable that names the file; empty: none does."""


class JobSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the Jobs of builds are."""

    identity: str
    """The agent's lasting one."""
    prefix: str
    namespace: str = ""
    """Empty: the cluster's own."""
    service_account: str = ""
    secrets: tuple[SecretMount, ...] = ()
    """That are there already."""
    own_logins: bool = True
    """Whether pods get the agent's logins for the registries that they need."""
    overlay: Mapping[str, Any] = {}
    timeout_seconds: float = 3600.0

    @property
    def name_prefix(self) -> str:
        """Of all that this agent makes; another agent has another."""
        owner = hashlib.sha256(self.identity.encode()).hexdigest()[:8]
        words = re.sub(r"[^a-z0-9]+", "-", self.prefix.lower()).strip("-")
        if not words or not words[0].isalpha():
            words = f"build-{words}"
        return f"{words[: _MAX_NAME - _HEX - 10].rstrip('-')}-{owner}-"


def job_name(settings: JobSettings, *, executor: str, image: str) -> str:
    """The same for the same image, which is named by its content."""
    work = hashlib.sha256(f"{executor} {image}".encode()).hexdigest()
    return f"{settings.name_prefix}{work[:_HEX]}"


def build_job(
    name: str,
    part: Part,
    settings: JobSettings,
    *,
    image: str,
    context: ContextMount | None,
    own_logins_folder: str | None,
) -> ClusterJob:
    """`own_logins_folder`: where the Job's own Secret belongs; None: it has none."""
    container, volumes = dict(part.container), list(part.volumes)
    mounts: list[Mapping[str, Any]] = list(container.get("volumeMounts") or ())
    env: list[Mapping[str, Any]] = list(container.get("env") or ())

    if context is not None:
        volumes.append(context.volume)
        mounts.append(context.mount)

    secrets = list(settings.secrets)
    if own_logins_folder is not None:
        own = {"secret": name, "key": LOGINS_KEY, "file": LOGINS_FILE}
        secrets.append(SecretMount(folder=own_logins_folder, **own))
    for number, secret in enumerate(secrets):
        volume = f"secret-{number}"
        items = [{"key": secret.key, "path": secret.file}]
        volumes.append({"name": volume, "secret": {"secretName": secret.secret, "items": items}})
        mounts.append({"name": volume, "mountPath": secret.folder, "readOnly": True})
        if secret.variable:
            env.append({"name": secret.variable, "value": f"{secret.folder}/{secret.file}"})

    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "containers": [{**container, "volumeMounts": mounts, "env": env}],
        "volumes": volumes,
    }
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    spec = {
        "activeDeadlineSeconds": math.ceil(settings.timeout_seconds),
        "template": {"spec": pod},
    }
    metadata = settings.overlay.get("metadata") or {}
    return ClusterJob(
        name=name,
        namespace=settings.namespace,
        about=image,
        spec=overlaid(spec, settings.overlay),
        labels=dict(metadata.get("labels") or {}),
        annotations=dict(metadata.get("annotations") or {}),
    )
