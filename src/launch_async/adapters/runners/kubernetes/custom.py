"""From a custom resource to what its run is doing: by what it says of itself, and by its pods.

What is not understood never ends a run.
"""

from collections.abc import Sequence

import msgspec

from launch_async.adapters.runners.kubernetes.causes import Wait
from launch_async.adapters.runners.kubernetes.ends import ended_at, pod_end
from launch_async.adapters.runners.kubernetes.objects import Custom, Event, Pod, unix_time
from launch_async.adapters.runners.kubernetes.states import (
    deciding_pod,
    deleted_end,
    ended_by_deletion,
)
from launch_async.adapters.runners.kubernetes.together import (
    OVERDUE_SECONDS,
    Together,
    let_go,
    look,
    phase,
    status_of,
)
from launch_async.adapters.runners.kubernetes.words import (
    Told,
    Word,
    conditions_of,
    has_parts,
    has_ready_parts,
    is_over,
    is_suspended,
    says_something,
    told_by,
    was_restarted,
)
from launch_async.domain.errors import Reason
from launch_async.domain.run import RunEnd, RunState, RunStatus, StartCause

_TIMEOUTS = frozenset({"timeout", "deadlineexceeded"})
_REASONS = {"STOPPED": Reason.KILLED, "ValidationFailed": Reason.LAUNCH_FAILED}
"""Of a RayJob: that somebody stopped it, and that its operator refused it."""


def judge_custom(
    custom: Custom, pods: Sequence[Pod], *, events: Sequence[Event] = (), now: float
) -> RunStatus:
    """What a custom resource's run is doing; as `states.judge_job`."""
    told = told_by(custom)
    if told is not None and is_over(told):
        return RunStatus(state=RunState.ENDED, end=_end(custom, told, pods))
    return let_go(_alive(custom, told, pods, events=events, now=now), conditions_of(custom))


def _alive(
    custom: Custom, told: Told | None, pods: Sequence[Pod], *, events: Sequence[Event], now: float
) -> RunStatus:
    seen = look(pods, events, owner=custom.metadata.uid, now=now)
    if told is None:
        return _untold(custom, seen, pods, now)
    said = _deleting(custom) or f"the {_kind(custom)} says: {told}"
    match told.word:
        case Word.QUEUED:
            return _queued(said)
        case Word.RUNNING | Word.STOPPING:
            plain = told.text.lower() == "running" and not _deleting(custom)
            return status_of(seen, begun=True, said="" if plain else said)
        case _:
            return _starting(custom, seen, told, said)


def _starting(custom: Custom, seen: Together, told: Told, said: str) -> RunStatus:
    """A kind that says it starts; pods of it may run already, while its main one does not."""
    if was_restarted(custom):
        return status_of(seen, begun=True, said=said)
    if told.text.lower() == "submission_failed":
        refused = Wait(cause=StartCause.REFUSED, text=said, warning=said)
        return status_of(Together(waits=(refused,)))
    if seen.running and not seen.waits:
        wait = Wait(cause=StartCause.PREPARING, text=f"{seen.running} of its pods run")
        return status_of(Together(waits=(wait,)), said=said)
    return status_of(msgspec.structs.replace(seen, running=0, begun=False), said=said)


def _untold(custom: Custom, seen: Together, pods: Sequence[Pod], now: float) -> RunStatus:
    """A kind of whose words none is understood: its pods show whether it runs."""
    kind = _kind(custom)
    if is_suspended(custom):
        return _queued(f"the {kind} is suspended: it waits until something resumes it")
    if not pods:
        return _without_pods(custom, seen, now)
    if all(phase(pod) in ("Succeeded", "Failed") for pod in pods) and not has_parts(custom):
        text = (
            f"all pods of the {kind} have ended, but nothing in its status that this agent"
            " understands says that it is over: stop the run, or set `run_timeout`"
        )
        return RunStatus(state=RunState.RUNNING, detail=text, warning=text)
    return status_of(seen, said=_deleting(custom))


def _without_pods(custom: Custom, seen: Together, now: float) -> RunStatus:
    if has_ready_parts(custom):
        return RunStatus(state=RunState.RUNNING, detail=_deleting(custom))
    if has_parts(custom) or seen.waits or not says_something(custom):
        return status_of(seen, said=_deleting(custom))
    kind = _kind(custom)
    text = f"nothing in the {kind}'s status is understood by this agent, and no pod of it is seen"
    made = unix_time(custom.metadata.creation_timestamp)
    late = made is not None and now - made > OVERDUE_SECONDS
    return RunStatus(state=RunState.UNKNOWN, detail=text, warning=text if late else "")


def _deleting(custom: Custom) -> str:
    return f"the {_kind(custom)} is being deleted" if custom.metadata.deletion_timestamp else ""


def _kind(custom: Custom) -> str:
    return custom.kind or "object"


def _queued(text: str) -> RunStatus:
    return RunStatus(state=RunState.STARTING, cause=StartCause.QUEUED, detail=text)


def _end(custom: Custom, told: Told, pods: Sequence[Pod]) -> RunEnd:
    ends = [at for at in map(ended_at, pods) if at is not None]
    at = told.at if told.at is not None else max(ends, default=None)
    if ended_by_deletion(custom.metadata.deleted_at, at):
        return deleted_end(_kind(custom))
    if told.word is Word.FINISHED:
        return RunEnd(exit_code=0)
    said = f"the {_kind(custom)} says: {told}"
    reason = _reason(told)
    pod = None if reason is not None else deciding_pod(pods)
    if pod is None:
        return RunEnd(exit_code=None, reason=reason, detail=said)
    end = pod_end(pod)
    which = f"its pod {pod.metadata.name}{f': {end.detail}' if end.detail else ''}"
    return msgspec.structs.replace(end, detail=f"{which}; {said}")


def _reason(told: Told) -> Reason | None:
    """What the kind's own word says of its end; None: its pods know."""
    if {told.text.lower(), told.reason.lower()} & _TIMEOUTS:
        return Reason.RUN_TIMEOUT
    return _REASONS.get(told.text)
