"""Which container of a pod is the job's own, and what the others are to it."""

import re
from collections.abc import Iterator

from launch_async.adapters.runners.kubernetes.objects import (
    ContainerStatus,
    Pod,
    PodSpec,
    PodStatus,
    Terminated,
)

NEVER_RAN = frozenset({"StartError", "ContainerCannotRun"})
"""Reasons of ends that are the container runtime's: the program never began."""
UNSEEN_END = "ContainerStatusUnknown"
"""Reason of an end that nobody saw; its exit code 137 is made up."""

_SIDECAR = re.compile(
    r"(?:.*-)?sidecar(?:-.*)?|istio-proxy|linkerd-proxy|envoy|daprd|vault-agent|cloud-?sql-proxy"
    r"|fluent-?bit|fluentd|filebeat|datadog-agent|otel-collector|opentelemetry-collector|tailscale"
)
"""Names of containers that others put beside a job's."""


def main_name(pod: Pod) -> str:
    """The container that is the job: the one that the pod names as such, else the first that does
    not look like a sidecar; a single one whatever its name."""
    names = [one.name for one in _spec(pod).containers or ()]
    annotations = pod.metadata.annotations
    if annotations is not None and annotations.main_container in names:
        return annotations.main_container
    own = [name for name in names if not _SIDECAR.fullmatch(name)]
    return next(iter(own or names), "")


def main_status(pod: Pod) -> ContainerStatus | None:
    """How the job's container is doing; None before the node has said anything of it."""
    name = main_name(pod)
    return next((one for one in _status(pod).container_statuses or () if one.name == name), None)


def containers(pod: Pod) -> Iterator[ContainerStatus]:
    """The statuses of the pod's containers, the job's own first."""
    name = main_name(pod)
    yield from sorted(_status(pod).container_statuses or (), key=lambda one: one.name != name)


def init_containers(pod: Pod) -> Iterator[ContainerStatus]:
    """The statuses of the init containers that must end before the pod goes on."""
    sidecars = {
        one.name for one in _spec(pod).init_containers or () if one.restart_policy == "Always"
    }
    for status in _status(pod).init_container_statuses or ():
        if status.name not in sidecars:
            yield status


def sidecars(pod: Pod) -> Iterator[ContainerStatus]:
    """The statuses of the init containers that run beside the job."""
    waited_for = {one.name for one in init_containers(pod)}
    for status in _status(pod).init_container_statuses or ():
        if status.name not in waited_for:
            yield status


def is_running(pod: Pod) -> bool:
    """Whether the job's container runs; where no container is told of, the pod's phase counts."""
    status = main_status(pod)
    if status is None:
        told = _status(pod).container_statuses
        return _status(pod).phase == "Running" and not told
    return status.now().running is not None


def has_begun(pod: Pod) -> bool:
    """Whether the job's program ever began in this pod."""
    status = main_status(pod)
    ended = None if status is None else status.ended
    if ended is not None:
        return ended.reason not in NEVER_RAN
    return is_running(pod) or (status is None and _status(pod).phase in ("Succeeded", "Failed"))


def end_that_counts(pod: Pod) -> tuple[str, Terminated] | None:
    """The container's end that explains a failed pod, with the container's name.

    The job's own if it failed, else that of an init container that failed, else of any other; the
    job's own good end if nothing else is known.
    """
    main = main_status(pod)
    others = [*init_containers(pod), *containers(pod), *sidecars(pod)]
    for status in [main, *others] if main is not None else others:
        if status.ended is not None and status.ended.exit_code != 0:
            return status.name, status.ended
    if main is None or main.ended is None:
        return None
    return main.name, main.ended


def still_running(pod: Pod) -> tuple[str, ...]:
    """Names of containers that keep the pod going although the job's own has ended for good."""
    main = main_status(pod)
    if main is None or (ended := main.now().terminated) is None:
        return ()
    policy = _spec(pod).restart_policy
    if policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0):
        return ()
    return tuple(one.name for one in containers(pod) if one.now().running is not None)


def _spec(pod: Pod) -> PodSpec:
    return pod.spec or PodSpec()


def _status(pod: Pod) -> PodStatus:
    return pod.status or PodStatus()
