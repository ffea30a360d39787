"""How a pod ended: exit code, signal, and a reason where the cluster knows more than these."""

from launch_async.adapters.runners.kubernetes.containers import (
    NEVER_RAN,
    UNSEEN_END,
    end_that_counts,
    main_name,
)
from launch_async.adapters.runners.kubernetes.events_text import short
from launch_async.adapters.runners.kubernetes.objects import (
    Condition,
    Pod,
    PodSpec,
    PodStatus,
    Terminated,
    unix_time,
)
from launch_async.domain.errors import Reason
from launch_async.domain.run import RunEnd

_TARGETED = ("DisruptionTarget", "TerminationTarget")
"""Conditions of a pod that its cluster takes away; the second one is Kueue's."""

_DISRUPTIONS = {
    "PreemptionByScheduler": "a more important pod took its place",
    "EvictionByEvictionAPI": "it was evicted, as when a node is drained",
    "DeletionByTaintManager": "its node was lost or is given up",
    "TerminationByKubelet": "its node put it out",
    "DeletionByPodGC": "its node is gone",
}

_NODE_ENDED_IT = frozenset({"NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting"})
"""Reasons of pods that their node ended; before Kubernetes 1.26 no condition says so."""
_NODE_REFUSED_IT = frozenset(
    {
        "UnexpectedAdmissionError",
        "UnexpectedPredicateFailureType",
        "InvalidNodeInfo",
        "NodeAffinity",
        "NodeName",
        "NodePorts",
        "NodeResourcesFit",
        "NodeUnschedulable",
        "TaintToleration",
        "TopologyAffinityError",
    }
)
"""Reasons of pods that were placed on a node that could not take them after all; also `OutOf…`."""
_NODE_SHORT = ("The node was low on resource", "The node had condition")
"""How messages of evictions begin that are the node's trouble and not the pod's."""

_SIGNALS = {137: "SIGKILL", 143: "SIGTERM"}


def disruption(pod: Pod) -> str:
    """Why the cluster takes this pod away, as a sentence; empty: it does not."""
    status = pod.status or PodStatus()
    for condition in status.conditions or ():
        if condition.type in _TARGETED and condition.true and not _too_late(condition, pod):
            said = _DISRUPTIONS.get(condition.reason, "its cluster took it away")
            return _because(said, condition.reason, condition.message)
    if status.phase != "Failed":
        return _because("its node was lost", "NodeLost", "") if status.reason == "NodeLost" else ""
    if status.reason in _NODE_ENDED_IT:
        return _because("its node put it out", status.reason, status.message)
    if status.reason in _NODE_REFUSED_IT or status.reason.startswith("OutOf"):
        return _because("its node did not take it after all", status.reason, status.message)
    if status.reason == "Evicted" and status.message.startswith(_NODE_SHORT):
        return _because("its node put it out", status.reason, status.message)
    return ""


def _too_late(condition: Condition, pod: Pod) -> bool:
    """Whether the job had failed by itself before the cluster laid hands on its pod."""
    counts = end_that_counts(pod)
    taken_at = unix_time(condition.last_transition_time)
    if counts is None or taken_at is None or counts[1].exit_code in _SIGNALS:
        return False
    ended_at = unix_time(counts[1].finished_at)
    return ended_at is not None and ended_at < taken_at


def ended_at(pod: Pod) -> float | None:
    """When it ended, as a Unix time; None: nobody knows."""
    counts = end_that_counts(pod)
    return unix_time(counts[1].finished_at) if counts else None


def was_deleted(pod: Pod) -> bool:
    """Whether somebody deleted it before it ended."""
    meta, counts, ended = pod.metadata, end_that_counts(pod), ended_at(pod)
    if meta.deleted_at is None or counts is None or ended is None:
        return meta.deleted_at is not None
    code = counts[1].exit_code
    if meta.deletion_grace_period_seconds:
        return ended > meta.deleted_at or (ended == meta.deleted_at and code in _SIGNALS)
    told = (pod.status or PodStatus()).observed_generation
    return told >= meta.generation if told else code in _SIGNALS


def pod_end(pod: Pod) -> RunEnd:
    """How the job ended in a pod that failed, or that is gone; never as a good end."""
    end = _pod_end(pod)
    if not end.clean:
        return end
    detail = "its container exited with 0, and yet its pod failed"
    return RunEnd(exit_code=None, reason=Reason.LAUNCH_FAILED, detail=detail)


def _pod_end(pod: Pod) -> RunEnd:
    counts = end_that_counts(pod)
    name, ended = counts or ("", None)
    taken = disruption(pod)
    if taken:
        code = None if ended is None or ended.reason == UNSEEN_END else ended.exit_code
        return RunEnd(exit_code=code, reason=Reason.PREEMPTED, detail=taken)
    by_cluster = _end_by_cluster(pod, ended)
    if by_cluster is not None:
        return by_cluster
    if ended is None:
        return _without_container(pod)
    end = _end_of_container(ended, deleted=was_deleted(pod))
    if name == main_name(pod):
        return end
    kind = "init container" if name in _init_names(pod) else "container"
    said = f"it was its {kind} {name}{f': {end.detail}' if end.detail else ''}"
    return RunEnd(exit_code=end.exit_code, signal=end.signal, reason=end.reason, detail=said)


def _end_by_cluster(pod: Pod, ended: Terminated | None) -> RunEnd | None:
    status = pod.status or PodStatus()
    code = None if ended is None or ended.reason == UNSEEN_END else ended.exit_code
    if status.reason == "DeadlineExceeded":
        detail = "its pod was active longer than its activeDeadlineSeconds"
        return RunEnd(exit_code=code, reason=Reason.RUN_TIMEOUT, detail=detail)
    if status.reason == "Evicted":
        detail = f"its node put it out (Evicted): {short(status.message)}"
        return RunEnd(exit_code=code, reason=Reason.OUT_OF_DISK, detail=detail)
    return None


def _without_container(pod: Pod) -> RunEnd:
    status = pod.status or PodStatus()
    if was_deleted(pod):
        detail = "its pod was deleted by somebody else before its end was seen"
        return RunEnd(exit_code=None, reason=Reason.VANISHED, detail=detail)
    detail = _because("its pod failed before its container began", status.reason, status.message)
    return RunEnd(exit_code=None, reason=Reason.LAUNCH_FAILED, detail=detail)


def _end_of_container(ended: Terminated, *, deleted: bool) -> RunEnd:
    code = ended.exit_code
    if ended.reason == UNSEEN_END:
        detail = "its node lost track of its container, as after a restart"
        return RunEnd(exit_code=None, reason=Reason.VANISHED, lost=True, detail=detail)
    if ended.reason == "OOMKilled":
        detail = "killed because its memory limit was reached: raise `resources.limits.memory`"
        return RunEnd(exit_code=code, reason=Reason.OUT_OF_MEMORY, detail=detail)
    if ended.reason in NEVER_RAN:
        detail = _because("it could not be started", ended.reason, ended.message)
        return RunEnd(exit_code=code, reason=Reason.LAUNCH_FAILED, detail=detail)
    if deleted:
        detail = "its pod was deleted by somebody else"
        return RunEnd(exit_code=code, reason=Reason.KILLED, detail=detail)
    return _end_of_program(ended)


def _end_of_program(ended: Terminated) -> RunEnd:
    code = ended.exit_code
    if ended.signal:
        return RunEnd(exit_code=None, signal=ended.signal, reason=Reason.KILLED)
    if code not in _SIGNALS:
        return RunEnd(exit_code=code)
    detail = (
        f"exit code {code} is that of a {_SIGNALS[code]}: something outside of this agent stopped"
        " or killed it (the node's memory, a probe, a person)"
    )
    return RunEnd(exit_code=code, detail=detail)


def _because(said: str, reason: str, message: str) -> str:
    words = ": ".join(part for part in (reason, short(message)) if part)
    return f"{said} ({words})" if words else said


def _init_names(pod: Pod) -> frozenset[str]:
    return frozenset(one.name for one in (pod.spec or PodSpec()).init_containers or ())
