"""The cluster's own words, made short and steady: the same trouble reads the same each time.

What changes from one try to the next (counts of nodes, names of pods, who uses how much of a quota)
is left out of warnings, since each different text is told.
"""

import re
from collections.abc import Iterable

from launch_async.adapters.runners.kubernetes.objects import Event
from launch_async.domain.run import StartCause

MAX_CHARACTERS = 400

REFUSALS = ("FailedCreate", "FailedCreatePod")
"""Events about the owner of pods: the API server let it make none."""

CAUSES = {
    "FailedMount": StartCause.VOLUME,
    "FailedAttachVolume": StartCause.VOLUME,
    "FailedMapVolume": StartCause.VOLUME,
    "FailedCreatePodSandBox": StartCause.CONTAINER,
    "FailedPrepareDynamicResources": StartCause.CONTAINER,
    "NetworkNotReady": StartCause.CONTAINER,
}
"""Events about a pod that say why it does not start, where the pod itself does not."""

_TOLD = {
    "NotTriggerScaleUp": "the cluster adds no node for it",
    "NodeNotReady": "its node does not answer",
    "TaintManagerEviction": "its node is given up",
    "ExceededGracePeriod": "it did not end in time",
    "FailedKillPod": "its node cannot end it",
    "UnknownCompletionMode": "the cluster does not know its completionMode",
}
"""Events worth a warning of runs that do not begin or whose node is lost, beside what the states of
objects tell."""

_COUNTS = re.compile(r"^\d+/\d+ nodes are available: ")
_TAIL = re.compile(r"\.? (?:preemption: |no new claims to deallocate).*$", re.DOTALL)
_NEXT_REASON = re.compile(r", (?=\d+ )")
_NUMBER = re.compile(r"^\d+ ")
_POD_NAME = re.compile(r'^(?:Error creating: )?(?:pods? "[^"]*" is forbidden: )?')
_QUOTA_USE = re.compile(r", used: .*?(?=, limited: )")
_NO_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(?:: (?:\w+: )?)?')
_TRY = re.compile(r"^(?:rpc error: code = \w+ desc = )")


def short(text: str, limit: int = MAX_CHARACTERS) -> str:
    """One line of bounded length, without its last full stop."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def scheduler_words(message: str) -> str:
    """Why no node fits, without how many nodes there are and what each of them lacks."""
    body = _TAIL.sub("", _COUNTS.sub("", " ".join(message.split())))
    reasons = [_NUMBER.sub("", part).rstrip(".") for part in _NEXT_REASON.split(body)]
    return short("; ".join(sorted(set(reasons))))


def missing_claim(message: str) -> str:
    """The persistent volume claim that the scheduler does not find; empty: it says of none."""
    found = _NO_CLAIM.search(message)
    return found[1] if found else ""


def refusal_words(message: str) -> str:
    """Why the API server let no pod be made: a quota, a webhook, a policy, a service account."""
    return short(_QUOTA_USE.sub("", _POD_NAME.sub("", " ".join(message.split()))))


def pull_words(message: str) -> str:
    """Why an image cannot be pulled; empty where the cluster says only that it waits to retry."""
    return short(_TRY.sub("", _BACK_OFF.sub("", " ".join(message.split()))))


def latest(events: Iterable[Event], uid: str, reasons: Iterable[str]) -> Event | None:
    """The newest event with one of these reasons about one object."""
    wanted = frozenset(reasons)
    found = (one for one in events if one.involved_object.uid == uid and one.reason in wanted)
    return max(found, key=lambda one: one.at, default=None)


def event_warnings(events: Iterable[Event]) -> tuple[str, ...]:
    """What events tell that no state of an object does, oldest first, each once."""
    told = (
        f"{_TOLD[one.reason]} ({one.reason}): {_steady(one.message)}"
        for one in sorted(events, key=lambda one: one.at)
        if one.reason in _TOLD
    )
    return tuple(dict.fromkeys(told))


def _steady(message: str) -> str:
    """Without how many nodes lack what, and in a fixed order."""
    head, colon, listed = " ".join(message.split()).rpartition(": ")
    reasons = {_NUMBER.sub("", part) for part in _NEXT_REASON.split(listed)}
    return short(head + colon + "; ".join(sorted(reasons)))
