"""From a Job or a pod to what its run is doing. docs/kubernetes-states.md is the table for people.

A Job is over when one of its conditions says so, never by counting: `backoffLimit`, indexes,
failure and success policies are its controller's business. Its pods say why it does not begin, and
which of their ends made it fail.
"""

import math
import re
from collections.abc import Sequence

import msgspec

from launch_async.adapters.runners.kubernetes.causes import gravest
from launch_async.adapters.runners.kubernetes.containers import end_that_counts
from launch_async.adapters.runners.kubernetes.ends import (
    disruption,
    ended_at,
    pod_end,
    was_deleted,
)
from launch_async.adapters.runners.kubernetes.events_text import short
from launch_async.adapters.runners.kubernetes.objects import (
    Condition,
    Event,
    Job,
    JobSpec,
    JobStatus,
    Pod,
    unix_time,
)
from launch_async.adapters.runners.kubernetes.together import let_go, look, phase, status_of
from launch_async.domain.errors import Reason
from launch_async.domain.run import RunEnd, RunState, RunStatus, StartCause

_NAMED_POD = re.compile(r"\b[Pp]od [a-z0-9.-]+/([a-z0-9.-]+)")
"""How the controller names the pod that its failure policy struck."""
_INDEXES = frozenset({"FailedIndexes", "MaxFailedIndexesExceeded"})
_MAX_INDEXES = 100


def judge_job(
    job: Job, pods: Sequence[Pod], *, events: Sequence[Event] = (), now: float
) -> RunStatus:
    """What a Job's run is doing.

    `pods`: all that were seen of it, also those that are gone since, as they were seen last;
    `events`: of the Job and of its pods; `now`: a Unix time. What it says may change with `now`
    alone: a run that has not begun is judged again after half a minute.
    """
    for condition in _status(job).conditions or ():
        if condition.true and condition.type in ("Complete", "Failed"):
            return _over(_job_end(job, condition, pods, events, now))
    suspended = _suspended(job)
    if suspended is not None:
        return suspended
    seen = look(pods, events, owner=job.metadata.uid, now=now)
    status = status_of(seen, begun=_has_begun(job), said=_said(job, pods))
    return let_go(status, _status(job).conditions or ())


def judge_pod(pod: Pod, *, events: Sequence[Event] = (), now: float) -> RunStatus:
    """What the run of a pod without a controller is doing."""
    match phase(pod):
        case "Succeeded" | "Failed" if was_deleted(pod):
            return _over(gone_pod_end(pod))
        case "Succeeded":
            return _over(RunEnd(exit_code=0))
        case "Failed":
            return _over(pod_end(pod))
        case _:
            said = "the pod is being deleted" if pod.metadata.deletion_timestamp else ""
            return status_of(look([pod], events, now=now), said=said)


def gone_pod_end(pod: Pod) -> RunEnd:
    """How the run of a pod without a controller ended that was deleted before it ended."""
    taken = disruption(pod)
    counts = end_that_counts(pod)
    code = counts[1].exit_code if counts else None
    if taken:
        return RunEnd(exit_code=code, reason=Reason.PREEMPTED, detail=taken)
    return deleted_end("pod")


def deleted_end(kind: str) -> RunEnd:
    """How a run ended whose object was deleted before it ended."""
    detail = f"the {kind} was deleted by somebody else"
    return RunEnd(exit_code=None, reason=Reason.VANISHED, detail=detail)


def unseen_end() -> RunEnd:
    """How a run ended whose object is gone, and nobody knows why."""
    detail = "its object is gone, and nobody here saw how it ended"
    return RunEnd(exit_code=None, reason=Reason.VANISHED, lost=True, detail=detail)


def ended_by_deletion(deleted_at: float | None, said_at: float | None) -> bool:
    """Whether an end that an object tells of is only that of its deletion.

    A clean-up may delete an object in the second in which it ended: that is no such end.
    """
    return deleted_at is not None and said_at is not None and said_at > deleted_at


def deciding_pod(pods: Sequence[Pod], *, tries: int = 0) -> Pod | None:
    """The pod that made a run fail: the first one after `tries` failures that count.

    Pods that were deleted, as when another one had failed, count only if no pod ended by itself or
    was taken away. None: no pod is known to have failed.
    """
    failed = sorted(filter(_has_failed, pods), key=lambda pod: ended_at(pod) or math.inf)
    own = [pod for pod in failed if disruption(pod) or not was_deleted(pod)]
    chosen = own or failed
    return chosen[min(tries, len(chosen) - 1)] if chosen else None


def _job_end(
    job: Job, condition: Condition, pods: Sequence[Pod], events: Sequence[Event], now: float
) -> RunEnd:
    if ended_by_deletion(job.metadata.deleted_at, unix_time(condition.last_transition_time)):
        return deleted_end("Job")
    if condition.type == "Complete":
        return RunEnd(exit_code=0)
    if condition.reason == "DeadlineExceeded":
        return _deadline_end(job, pods, events, now)
    pod = deciding_pod(_candidates(job, condition, pods), tries=_tries(job, condition))
    words = short(condition.message) or condition.reason or "Failed"
    if pod is None:
        detail = f"the Job failed ({words}), and its pods are gone: nobody knows how they ended"
        return RunEnd(exit_code=None, reason=Reason.VANISHED, detail=detail)
    end = pod_end(pod)
    which = f"it was its pod {pod.metadata.name}" if _has_many(job) else ""
    detail = "; ".join(part for part in (end.detail, which, _failures(job, condition)) if part)
    return msgspec.structs.replace(end, detail=detail)


def _deadline_end(job: Job, pods: Sequence[Pod], events: Sequence[Event], now: float) -> RunEnd:
    limit = _spec(job).active_deadline_seconds
    detail = "the Job was active longer than its activeDeadlineSeconds"
    detail += f" of {limit} s" if limit is not None else ""
    seen = look(pods, events, owner=job.metadata.uid, now=now)
    if seen.waits and not seen.begun:
        detail += f", and had not begun: {gravest(seen.waits).text}"
    return RunEnd(exit_code=None, reason=Reason.RUN_TIMEOUT, detail=detail)


def _candidates(job: Job, condition: Condition, pods: Sequence[Pod]) -> Sequence[Pod]:
    """The pods among which the one is that decided."""
    named = _NAMED_POD.search(condition.message)
    if named is not None:
        return [pod for pod in pods if pod.metadata.name == named[1]]
    if condition.reason in _INDEXES:
        failed = _status(job).failed_indexes or ""
        return [pod for pod in pods if in_indexes(pod.metadata.label().index, failed)] or pods
    return pods


def _tries(job: Job, condition: Condition) -> int:
    if condition.reason in _INDEXES:
        return _spec(job).backoff_limit_per_index or 0
    if condition.reason == "BackoffLimitExceeded":
        return _spec(job).backoff_limit or 0
    return 0


def _failures(job: Job, condition: Condition) -> str:
    """What the Job says of its failures, where there may be more than one."""
    status, limit = _status(job), _spec(job).backoff_limit or 0
    if condition.reason in _INDEXES:
        return f"failed indexes: {short(status.failed_indexes or 'unknown', _MAX_INDEXES)}"
    if condition.reason == "BackoffLimitExceeded":
        return f"{status.failed} of its pods failed" if limit and status.failed else ""
    return short(condition.message) or condition.reason


def _suspended(job: Job) -> RunStatus | None:
    if not _spec(job).suspend:
        return None
    queue = job.metadata.label().kueue_queue
    if queue:
        text, warning = f"it waits in the Kueue queue {queue}", ""
    else:
        text = "the Job is suspended: somebody or something must resume it (`spec.suspend`)"
        warning = text
    return RunStatus(state=RunState.STARTING, cause=StartCause.QUEUED, detail=text, warning=warning)


def _has_begun(job: Job) -> bool:
    status = _status(job)
    return bool(status.failed or status.succeeded or status.ready)


def _said(job: Job, pods: Sequence[Pod]) -> str:
    """How far a Job is, where that is more than running or not."""
    spec, status = _spec(job), _status(job)
    for condition in status.conditions or ():
        if condition.true and condition.type == "FailureTarget":
            words = short(condition.message) or condition.reason
            return f"the Job has failed ({words}); its last pods are being ended"
        if condition.true and condition.type == "SuccessCriteriaMet":
            return "the Job has succeeded; its last pods are being ended"
    if job.metadata.deletion_timestamp:
        return "the Job is being deleted"
    succeeded, failed = status.succeeded or 0, status.failed or 0
    if _has_many(job):
        of = f" of {spec.completions}" if spec.completions else ""
        broken = f", failed: {failed}" if failed else ""
        return f"pods done: {succeeded}{of}{broken}"
    if not failed:
        return ""
    last = deciding_pod(pods, tries=len(pods))
    how = f"; the last one {_how(pod_end(last))}" if last is not None else ""
    return f"{failed} of {(spec.backoff_limit or 0) + 1} tries failed{how}"


def _has_many(job: Job) -> bool:
    spec = _spec(job)
    return (spec.completions or 1) > 1 or (spec.parallelism or 1) > 1


def _how(end: RunEnd) -> str:
    if end.detail:
        return f"ended: {end.detail}"
    return f"exited with code {end.exit_code}"


def _has_failed(pod: Pod) -> bool:
    counts = end_that_counts(pod)
    if phase(pod) == "Succeeded":
        return False
    gone = pod.metadata.deletion_timestamp is not None
    return phase(pod) == "Failed" or gone or (counts is not None and counts[1].exit_code != 0)


def _over(end: RunEnd) -> RunStatus:
    return RunStatus(state=RunState.ENDED, end=end)


def _spec(job: Job) -> JobSpec:
    return job.spec or JobSpec()


def _status(job: Job) -> JobStatus:
    return job.status or JobStatus()


def in_indexes(index: str, ranges: str) -> bool:
    """Whether a completion index is in a text such as `0,2-4`."""
    if not index.isdecimal():
        return False
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and int(first) <= int(index) <= int(last or first):
            return True
    return False
