"""Builds in a Kubernetes cluster: `builder.cluster`. Ours, beside W&B's words for kaniko."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

Name = Annotated[str, msgspec.Meta(pattern=r"^$|^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
SubPath = Annotated[str, msgspec.Meta(pattern=r"^(?!/)(?!.*(^|/)\.\.(/|$)).{0,1000}$")]

CLAIM_VARIABLE = "WANDB_LAUNCH_KANIKO_PVC_NAME"
FOLDER_VARIABLE = "WANDB_LAUNCH_KANIKO_PVC_MOUNT_PATH"
SECRET_VARIABLE = "WANDB_LAUNCH_KANIKO_AUTH_SECRET"  # noqa: S105 - a name
ACCOUNT_VARIABLE = "WANDB_LAUNCH_SERVICE_ACCOUNT_NAME"
"""What W&B's chart sets in its agent's environment."""


class ClusterBuildsSection(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """How images are built by Jobs in the agent's cluster."""

    namespace: Name = ""
    """Of the Jobs. Empty: that of `kaniko-config`, else the one that the agent's login names."""
    service_account: Name = ""
    """Of their pods. Empty: the namespace's own."""
    context_claim: Name = ""
    """Persistent volume claim by which pods get their build contexts."""
    context_folder: str = ""
    """Where the agent sees the volume of that claim."""
    context_sub_path: SubPath = ""
    """Folder within the claim that the agent sees there. Empty: all of it."""
    registry_secret: Name = ""
    """A Secret of type `kubernetes.io/dockerconfigjson` with logins for registries. Empty: each
    build gets a Secret of its own with those logins of the agent's that it needs."""
    image: str = ""
    """Of BuildKit. Empty: its own of version 0.34.2, in the variant that is wanted."""
    privileged: bool = False
    """Whether BuildKit runs privileged. False: rootless."""
    job: dict[str, Any] = {}
    """Laid over the Jobs: a part of a Job with `metadata` and `spec`."""


def with_environment(
    section: ClusterBuildsSection, environ: Mapping[str, str]
) -> ClusterBuildsSection:
    """The section, what it leaves empty taken from the variables of W&B's chart."""
    return msgspec.structs.replace(
        section,
        context_claim=section.context_claim or environ.get(CLAIM_VARIABLE, ""),
        context_folder=section.context_folder or environ.get(FOLDER_VARIABLE, ""),
        registry_secret=section.registry_secret or environ.get(SECRET_VARIABLE, ""),
        service_account=section.service_account or environ.get(ACCOUNT_VARIABLE, ""),
    )
