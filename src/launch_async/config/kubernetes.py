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


class LeaseSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`agent.kubernetes.lease`: of all agents that name the same Lease, its holder alone acts."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    """The Lease, which the agent makes if it is not there. It keeps the agent's identity too."""
    namespace: Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")] = ""
    """Where it is. Empty: the namespace of the context, or of the agent's pod."""
    duration: Annotated[int, msgspec.Meta(ge=3, le=3600)] = 30
    """Seconds without a renewal after which another agent may take it. A holder that cannot renew
    it ends after two thirds of them."""
    renew: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 5.0
    """Seconds between two renewals, and between two looks of an agent that waits for it."""

    def __post_init__(self) -> None:
        """What the fields say only together."""
        if self.renew * 3 > self.duration:
            msg = f"duration ({self.duration}) is less than three times renew ({self.renew:g})"
            raise ValueError(msg)


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
    code_image: str = ""
    """Image of the agent, by which pods fetch the code of jobs that are not built. Empty:
    `launch-async/agent` with the agent's own version as its tag."""
    lease: LeaseSection | None = None
    """A Lease of the cluster, by which of several replicas only one acts; null: there is one agent
    alone, whose state folder says who it is."""
