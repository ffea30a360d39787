"""One door to all verdicts on runs: by the kind of their object, and on objects that are gone."""

from collections.abc import Sequence

from launch_async.adapters.runners.kubernetes.custom import judge_custom
from launch_async.adapters.runners.kubernetes.ends import disruption
from launch_async.adapters.runners.kubernetes.objects import Custom, Event, Job, Pod
from launch_async.adapters.runners.kubernetes.states import (
    deleted_end,
    gone_pod_end,
    judge_job,
    judge_pod,
    unseen_end,
)
from launch_async.domain.run import RunEnd, RunStatus

Launched = Job | Pod | Custom


def judge(
    launched: Launched, pods: Sequence[Pod], *, events: Sequence[Event] = (), now: float
) -> RunStatus:
    """What the run of an object that is there is doing. `pods`: those that belong to it."""
    match launched:
        case Job():
            return judge_job(launched, pods, events=events, now=now)
        case Pod():
            return judge_pod(launched, events=events, now=now)
        case Custom():
            return judge_custom(launched, pods, events=events, now=now)


def judge_gone(
    launched: Launched, pods: Sequence[Pod], *, now: float, unseen: bool = False
) -> RunEnd:
    """How the run of an object ended that is gone, from what was seen of it last.

    `unseen`: it went while nobody watched, as what ends and is cleaned up then.
    """
    end = judge(launched, pods, now=now).end
    if end is not None:
        return end
    taken = isinstance(launched, Pod) and disruption(launched)
    if unseen and not taken and not launched.metadata.deletion_timestamp:
        return unseen_end()
    match launched:
        case Job():
            return deleted_end("Job")
        case Pod():
            return gone_pod_end(launched)
        case Custom():
            return deleted_end(launched.kind or "object")
