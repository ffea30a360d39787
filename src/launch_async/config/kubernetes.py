"""How the agent uses Kubernetes: `agent.kubernetes`. Ours; W&B's agent has no such settings."""

from typing import Annotated, Literal

import msgspec

Pattern = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9*?\[\]!.-]{1,253}$")]
Kind = Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9.-]+/)?v[a-z0-9]+/[A-Z][A-Za-z0-9]*$")]
KindPattern = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9*?\[\]!./-]{1,253}$")]
Opening = Literal[
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "capabilities",
    "context",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPath",
    "hostPort",
    "hostProcess",
    "mountPropagation",
    "nodeName",
    "priorityClassName",
    "privileged",
    "procMount",
    "serviceAccountToken",
    "unconfined",
]


class KubernetesSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`agent.kubernetes`: which cluster is used, what queues may use of it, and how fast."""

    config_file: str = ""
    """A kubeconfig. Empty: `KUBECONFIG`, else `~/.kube/config` if it is there, else the cluster
    that the agent runs in."""
    context: str = ""
    """A context of it. Empty: its current one."""
    config_files: tuple[str, ...] | None = None
    """Kubeconfigs that queues may name by `configFile`, whose programs run as the agent; null:
    any that is on its disk."""
    namespaces: tuple[Pattern, ...] | None = None
    """Namespaces that queues may use, as names or patterns such as `team-*`; null: any. Those
    named are looked through at each start for runs that the agent has forgotten."""
    kinds: tuple[Kind, ...] = ()
    """Kinds beside Jobs that are looked for there, such as `jobset.x-k8s.io/v1alpha2/JobSet`. The
    agent remembers in its state folder which ones it has made."""
    allowed_kinds: tuple[KindPattern, ...] | None = None
    """What queues may make, as `batch/v1/Job` or `*/RayJob`; null: anything."""
    service_accounts: tuple[Pattern, ...] | None = None
    """Service accounts that pods may name, as names or patterns; null: any."""
    allow: tuple[Opening, ...] | None = None
    """What opens the cluster or its nodes and queues may use all the same; null: everything that
    the cluster itself lets through."""
    calls_per_second: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 50.0
    """Requests to one cluster in a second; watches are not counted."""
    burst: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    """Requests at once after a quiet time."""
