"""What the pods of one run say together, for as long as nobody says that it is over."""

from collections.abc import Iterable, Sequence

import msgspec

from launch_async.adapters.runners.kubernetes.causes import Wait, gravest, why_waiting
from launch_async.adapters.runners.kubernetes.containers import (
    has_begun,
    is_running,
    main_name,
    still_running,
)
from launch_async.adapters.runners.kubernetes.ends import disruption, ended_at
from launch_async.adapters.runners.kubernetes.events_text import (
    REFUSALS,
    latest,
    refusal_words,
)
from launch_async.adapters.runners.kubernetes.objects import (
    Condition,
    Event,
    Pod,
    PodSpec,
    unix_time,
)
from launch_async.domain.run import RunState, RunStatus, StartCause

OVERDUE_SECONDS = 60.0
"""How long after its grace a deleted pod may be there before its node counts as lost, and how long
after its job's end it may go on before its sidecars count as stuck."""


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """The pods that have not ended, looked at at once."""

    running: int = 0
    begun: bool = False
    """Whether the program began in any pod, also one that has ended."""
    waits: tuple[Wait, ...] = ()
    lost: tuple[str, ...] = ()
    """Why nobody knows how some pods are doing."""
    taken: tuple[str, ...] = ()
    """Why some pods are being taken away."""


def look(pods: Sequence[Pod], events: Sequence[Event], *, owner: str = "", now: float) -> Together:
    """All pods of one run, in one value. `owner`: uid of the object whose pods they are."""
    running, waits, lost, taken = 0, [], [], []
    for pod in pods:
        if phase(pod) in ("Succeeded", "Failed"):
            continue
        if why := _lost(pod, now):
            lost.append(why)
        elif is_running(pod):
            running += 1
        else:
            waits.append(_hung(pod, now) or why_waiting(pod, events, now=now))
        if why := disruption(pod):
            taken.append(why)
    refused = _refused(owner, pods, events)
    if refused is not None:
        waits.append(refused)
    return Together(
        running=running,
        begun=any(has_begun(pod) for pod in pods),
        waits=tuple(waits),
        lost=tuple(lost),
        taken=tuple(taken),
    )


def status_of(seen: Together, *, begun: bool = False, said: str = "") -> RunStatus:
    """`begun`: somebody else knows that it began; `said`: what its controller says of it."""
    wait = gravest(seen.waits) if seen.waits else None
    warning = wait.warning if wait is not None else ""
    if seen.lost and not seen.running:
        why = seen.lost[0]
        return RunStatus(state=RunState.UNKNOWN, detail=_joined(said, why), warning=why)
    if seen.running or seen.begun or begun:
        parts = [said, *seen.taken[:1], *seen.lost[:1]]
        if wait is not None and wait.cause is not StartCause.PREPARING:
            parts.append(wait.text)
        return RunStatus(state=RunState.RUNNING, detail=_joined(*parts), warning=warning)
    if wait is None:
        wait = Wait(cause=StartCause.PREPARING, text="no pod of it is there yet")
    return RunStatus(
        state=RunState.STARTING,
        detail=_joined(said, *seen.taken[:1], wait.text),
        cause=wait.cause,
        warning=warning,
    )


def let_go(status: RunStatus, conditions: Iterable[Condition]) -> RunStatus:
    """With the moment at which a run that has not begun was let go, if it was held back."""
    if status.state is not RunState.STARTING or status.cause is StartCause.QUEUED:
        return status
    for one in conditions:
        if one.type == "Suspended" and one.status == "False":
            at = unix_time(one.last_transition_time)
            return msgspec.structs.replace(status, held_until=at)
    return status


def phase(pod: Pod) -> str:
    """The pod's phase; empty before it has one."""
    return pod.status.phase if pod.status else ""


def _lost(pod: Pod, now: float) -> str:
    node = (pod.spec or PodSpec()).node_name
    if phase(pod) == "Unknown" or (pod.status and pod.status.reason == "NodeLost"):
        return f"node {node} does not answer: nobody knows how its pod is doing"
    gone_by = unix_time(pod.metadata.deletion_timestamp)
    if node and gone_by is not None and now - gone_by > OVERDUE_SECONDS:
        return f"node {node} does not say that its pod, which was deleted, has ended"
    return ""


def _refused(owner: str, pods: Sequence[Pod], events: Sequence[Event]) -> Wait | None:
    """That the API server lets no (further) pod be made."""
    event = latest(events, owner, REFUSALS)
    made = (unix_time(pod.metadata.creation_timestamp) or 0.0 for pod in pods)
    if event is None or any(at >= event.at for at in made):
        return None
    text = f"the cluster lets no pod be made for it: {refusal_words(event.message)}"
    return Wait(cause=StartCause.REFUSED, text=text, warning=text)


def _hung(pod: Pod, now: float) -> Wait | None:
    """A pod that goes on without its job, for the sake of containers that never end."""
    others, ended = still_running(pod), ended_at(pod)
    if not others:
        return None
    text = (
        f"its container {main_name(pod)} has ended, but its pod goes on as long as"
        f" {', '.join(others)} runs: make that an init container with `restartPolicy: Always`"
    )
    late = ended is not None and now - ended > OVERDUE_SECONDS
    return Wait(cause=StartCause.CONTAINER, text=text, warning=text if late else "")


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
