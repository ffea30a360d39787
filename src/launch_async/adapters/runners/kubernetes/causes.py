"""Why a pod does not run: a cause of a closed list, the cluster's words, and when to warn of it."""

from collections.abc import Iterable, Sequence

import msgspec

from launch_async.adapters.runners.kubernetes.containers import (
    NEVER_RAN,
    containers,
    init_containers,
    sidecars,
)
from launch_async.adapters.runners.kubernetes.events_text import (
    CAUSES,
    latest,
    missing_claim,
    pull_words,
    scheduler_words,
    short,
)
from launch_async.adapters.runners.kubernetes.injection import FETCH_CONTAINER
from launch_async.adapters.runners.kubernetes.objects import (
    Condition,
    ContainerStatus,
    Event,
    Pod,
    PodSpec,
    PodStatus,
    unix_time,
)
from launch_async.domain.run import StartCause

PATIENCE_SECONDS = 30.0
"""How long a pod may lack a Secret or a volume without a word: a run's Secret is made right after
its Job, and volumes are often there at the second try."""

WAITING = {
    "ErrImagePull": StartCause.IMAGE,
    "ImagePullBackOff": StartCause.IMAGE,
    "InvalidImageName": StartCause.IMAGE,
    "ErrImageNeverPull": StartCause.IMAGE,
    "ImageInspectError": StartCause.IMAGE,
    "RegistryUnavailable": StartCause.IMAGE,
    "SignatureValidationFailed": StartCause.IMAGE,
    "CreateContainerConfigError": StartCause.CONFIG,
    "CreateContainerError": StartCause.CONTAINER,
    "RunContainerError": StartCause.CONTAINER,
    "PreStartHookError": StartCause.CONTAINER,
    "PostStartHookError": StartCause.CONTAINER,
    "CrashLoopBackOff": StartCause.CONTAINER,
}
"""Reasons for which a container waits; others are the usual steps."""

_GRAVEST_FIRST = (
    StartCause.IMAGE,
    StartCause.CONFIG,
    StartCause.CONTAINER,
    StartCause.VOLUME,
    StartCause.REFUSED,
    StartCause.UNSCHEDULABLE,
    StartCause.INIT,
    StartCause.QUEUED,
    StartCause.PREPARING,
)


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Why something does not run."""

    cause: StartCause
    text: str
    warning: str = ""
    """Empty: nothing to worry about yet. The same trouble has the same text."""


def gravest(waits: Iterable[Wait]) -> Wait:
    """The one to tell of several; those that one should be warned of come first."""
    return min(waits, key=lambda one: (not one.warning, _GRAVEST_FIRST.index(one.cause)))


def why_waiting(pod: Pod, events: Sequence[Event], *, now: float) -> Wait:
    """Why this pod's job does not run (yet, or again). `now`: a Unix time."""
    return (
        _held(pod)
        or _unplaced(pod)
        or _stuck(pod, now)
        or _told(pod, events, now)
        or _initializing(pod)
        or _usual(pod)
    )


def claim_wanted(pod: Pod) -> str:
    """The persistent volume claim for want of which no node is chosen; empty: that is not why."""
    placed = _condition(pod, "PodScheduled")
    return "" if placed is None or placed.true else missing_claim(placed.message)


def _held(pod: Pod) -> Wait | None:
    gates = ", ".join(one.name for one in _spec(pod).scheduling_gates or ())
    if not gates:
        return None
    return Wait(cause=StartCause.QUEUED, text=f"its pod is held back by the gate {gates}")


def _unplaced(pod: Pod) -> Wait | None:
    placed = _condition(pod, "PodScheduled")
    if placed is None or placed.true or placed.reason not in ("Unschedulable", "SchedulerError"):
        return None
    return Wait(
        cause=StartCause.UNSCHEDULABLE,
        text=f"no node fits its pod: {short(placed.message)}",
        warning=f"no node fits its pod: {scheduler_words(placed.message)}",
    )


def _stuck(pod: Pod, now: float) -> Wait | None:
    inits = [(f"init container {one.name}", one) for one in init_containers(pod)]
    others = [(f"container {one.name}", one) for one in [*containers(pod), *sidecars(pod)]]
    waits = [_container_wait(who, one, pod, now) for who, one in [*inits, *others]]
    found = [one for one in waits if one is not None]
    return gravest(found) if found else None


def _container_wait(who: str, status: ContainerStatus, pod: Pod, now: float) -> Wait | None:
    waiting = status.now().waiting
    cause = None if waiting is None else WAITING.get(waiting.reason)
    if waiting is None or cause is None:
        return None
    reason, message = waiting.reason, short(waiting.message)
    match cause:
        case StartCause.IMAGE:
            ours = status.name == FETCH_CONTAINER
            setting = " of agent.kubernetes.code_image, which fetches the code," if ours else ""
            said = f"image {status.image}{setting} cannot be pulled"
            words = pull_words(waiting.message)
            return Wait(
                cause=cause,
                text=f"{said} ({reason}){f': {words}' if words else ''}",
                warning=f"{said}{f': {words}' if words else f' ({reason})'}",
            )
        case StartCause.CONFIG:
            text = f"{who} lacks something that its spec names: {message}"
            if _age(pod, now) < PATIENCE_SECONDS:
                return Wait(cause=StartCause.PREPARING, text=text)
            return Wait(cause=cause, text=text, warning=text)
        case _:
            return _crashing(who, status) or _failing(f"{who} cannot be started", reason, message)


def _crashing(who: str, status: ContainerStatus) -> Wait | None:
    ended, waiting = status.ended, status.now().waiting
    if ended is None or waiting is None or waiting.reason != "CrashLoopBackOff":
        return None
    if ended.reason in NEVER_RAN:
        return _failing(f"{who} cannot be started", ended.reason, short(ended.message))
    because = f"exit code {ended.exit_code}"
    if ended.reason not in ("", "Error", "Completed"):
        because += f", {ended.reason}"
    said = f"{who} ends again and again ({because})"
    is_init = who.startswith("init ")
    return Wait(
        cause=StartCause.INIT if is_init else StartCause.CONTAINER,
        text=f"{said}; it was restarted {status.restart_count} times",
        warning=said,
    )


def _failing(said: str, reason: str, message: str) -> Wait:
    text = f"{said} ({reason}){f': {message}' if message else ''}"
    return Wait(cause=StartCause.CONTAINER, text=text, warning=text)


def _told(pod: Pod, events: Sequence[Event], now: float) -> Wait | None:
    event = latest(events, pod.metadata.uid, CAUSES)
    if event is None or not _is_being_made(pod):
        return None
    text = f"{_WORDS[CAUSES[event.reason]]} ({event.reason}): {short(event.message)}"
    if _age(pod, now) < PATIENCE_SECONDS:
        return Wait(cause=StartCause.PREPARING, text=text)
    return Wait(cause=CAUSES[event.reason], text=text, warning=text)


_WORDS = {
    StartCause.VOLUME: "a volume cannot be mounted",
    StartCause.CONTAINER: "its node cannot set up its pod",
}


def _is_being_made(pod: Pod) -> bool:
    """Whether no container has come any further yet; what failed before counts no more else."""
    every = [*init_containers(pod), *sidecars(pod), *containers(pod)]
    return all(one.now().running is None and one.ended is None for one in every)


def _initializing(pod: Pod) -> Wait | None:
    for status in init_containers(pod):
        state = status.now()
        if state.running is not None:
            return Wait(cause=StartCause.INIT, text=f"its init container {status.name} runs")
        if status.ended is not None and status.ended.exit_code != 0:
            text = f"its init container {status.name} failed (exit code {status.ended.exit_code})"
            return Wait(cause=StartCause.INIT, text=text, warning=text)
    return None


def _usual(pod: Pod) -> Wait:
    node = _spec(pod).node_name
    text = f"its containers are made on node {node}" if node else "no node is chosen for its pod"
    return Wait(cause=StartCause.PREPARING, text=text)


def _age(pod: Pod, now: float) -> float:
    begun = unix_time((pod.status or PodStatus()).start_time)
    made = unix_time(pod.metadata.creation_timestamp)
    return now - (begun or made or now)


def _condition(pod: Pod, kind: str) -> Condition | None:
    conditions = (pod.status or PodStatus()).conditions or ()
    return next((one for one in conditions if one.type == kind), None)


def _spec(pod: Pod) -> PodSpec:
    return pod.spec or PodSpec()
