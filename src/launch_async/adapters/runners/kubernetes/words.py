"""What a custom resource says of itself, in its kind's own place and words, understood or not.

The places are read in the order below, and the first that is understood counts.

```
status.state.phase             Volcano
status.applicationState.state  SparkApplication
status.jobDeploymentStatus     RayJob, with status.jobStatus
status.phase                   Argo Workflow, AppWrapper
status.terminalState           JobSet
status.conditions              JobSet, PyTorchJob and its like, TrainJob, most others
```
"""

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any

import msgspec

from launch_async.adapters.runners.kubernetes.events_text import short
from launch_async.adapters.runners.kubernetes.objects import (
    Condition,
    Custom,
    CustomSpec,
    CustomStatus,
    unix_time,
)


class Word(Enum):
    """What the word that a kind has for its state means."""

    STARTING = auto()
    QUEUED = auto()
    RUNNING = auto()
    STOPPING = auto()
    FINISHED = auto()
    FAILED = auto()


WORDS = {
    "created": Word.STARTING,
    "pending": Word.STARTING,
    "submitted": Word.STARTING,
    "submission_failed": Word.STARTING,
    "initializing": Word.STARTING,
    "waiting": Word.STARTING,
    "resuming": Word.STARTING,
    "queued": Word.QUEUED,
    "queuing": Word.QUEUED,
    "suspended": Word.QUEUED,
    "suspending": Word.QUEUED,
    "running": Word.RUNNING,
    "completing": Word.RUNNING,
    "succeeding": Word.RUNNING,
    "failing": Word.RUNNING,
    "restarting": Word.RUNNING,
    "retrying": Word.RUNNING,
    "pending_rerun": Word.RUNNING,
    "invalidating": Word.RUNNING,
    "resetting": Word.RUNNING,
    "terminating": Word.STOPPING,
    "aborting": Word.STOPPING,
    "succeeded": Word.FINISHED,
    "completed": Word.FINISHED,
    "complete": Word.FINISHED,
    "failed": Word.FAILED,
    "aborted": Word.FAILED,
    "timeout": Word.FAILED,
    "terminated": Word.FAILED,
}
"""Words of states and types of conditions, in lower case."""

_RAY = {**WORDS, "stopped": Word.FAILED, "validationfailed": Word.FAILED}
_ARGO = {**WORDS, "error": Word.FAILED}
"""Words that are ends in these kinds; in others they may be passing troubles."""

_CONDITIONS = (
    Word.FINISHED,
    Word.FAILED,
    Word.QUEUED,
    Word.STOPPING,
    Word.RUNNING,
    Word.STARTING,
)
"""Conditions stay true when further ones become so: what they mean together, gravest first."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a custom resource says of itself, understood."""

    word: Word
    text: str
    """The kind's own word, for people."""
    reason: str = ""
    message: str = ""
    at: float | None = None
    """Since when, as a Unix time."""

    def __str__(self) -> str:
        words = ": ".join(part for part in (self.reason, short(self.message)) if part)
        return f"{self.text} ({words})" if words else self.text


def told_by(custom: Custom) -> Told | None:
    """What is understood of its status; None: nothing."""
    words = _ARGO if custom.api_version.startswith("argoproj.io/") else WORDS
    return next((told for told in _all_told(_status(custom), words) if told is not None), None)


def is_over(told: Told | None) -> bool:
    """Whether that is an end."""
    return told is not None and told.word in (Word.FINISHED, Word.FAILED)


def conditions_of(custom: Custom) -> Iterator[Condition]:
    """Its conditions, those that can be read."""
    return _conditions(_status(custom).conditions)


def says_something(custom: Custom) -> bool:
    """Whether its status has words, also where none is known."""
    status = custom.status
    if not isinstance(status, CustomStatus) or status == CustomStatus():
        return status is not None
    state, spark = status.state, status.application_state
    words = [
        state.get("phase") if isinstance(state, dict) else state,
        spark.get("state") if isinstance(spark, dict) else spark,
        status.job_status,
        status.job_deployment_status,
        status.phase,
        status.terminal_state,
    ]
    return any(words) or any(one.true for one in _conditions(status.conditions))


def is_suspended(custom: Custom) -> bool:
    """Whether its spec holds it back, also before its controller has said so."""
    spec = custom.spec
    if not isinstance(spec, CustomSpec):
        return False
    policy = spec.run_policy
    return spec.suspend is True or (isinstance(policy, dict) and policy.get("suspend") is True)


def has_parts(custom: Custom) -> bool:
    """Whether it counts parts of it that were made: a JobSet has no condition before its end."""
    return bool(_replicated(custom))


def has_ready_parts(custom: Custom) -> bool:
    """Whether parts of it run, or have ended well."""
    return any(
        _number(one.get(count)) for one in _replicated(custom) for count in ("ready", "succeeded")
    )


def was_restarted(custom: Custom) -> bool:
    """Whether its controller has begun it anew."""
    status = _status(custom)
    return bool(_number(status.restarts) or _number(status.retry_count))


def _all_told(status: CustomStatus, words: Mapping[str, Word]) -> Iterator[Told | None]:
    state, spark = status.state, status.application_state
    if isinstance(state, dict):
        yield _understood(state.get("phase"), state.get("reason"), state.get("message"))
    else:
        yield _understood(state, status.reason, status.message)
    if isinstance(spark, dict):
        yield _understood(spark.get("state"), None, spark.get("errorMessage"))
    yield _ray(status)
    yield _understood(status.phase, status.reason, status.message, words)
    yield _terminal(status)
    yield _by_conditions(status)


def _understood(
    word: Any, reason: Any, message: Any, words: Mapping[str, Word] = WORDS
) -> Told | None:
    meaning = words.get(word.lower()) if isinstance(word, str) else None
    if meaning is None:
        return None
    return Told(word=meaning, text=word, reason=_text(reason), message=_text(message))


def _ray(status: CustomStatus) -> Told | None:
    """A RayJob: it may be tried again after its job failed, and is over when its deployment is.

    Before KubeRay had a word for the deployment there was only the job's.
    """
    job = _understood(status.job_status, status.reason, status.message, _RAY)
    deployment = _understood(status.job_deployment_status, status.reason, status.message, _RAY)
    if deployment is None:
        return None if status.job_deployment_status and is_over(job) else job
    if deployment.word is Word.FINISHED:
        return job if is_over(job) else deployment
    if deployment.word is Word.RUNNING and job is not None and job.word is Word.STARTING:
        return job
    return deployment


def _terminal(status: CustomStatus) -> Told | None:
    told = _understood(status.terminal_state, None, None)
    by_conditions = _by_conditions(status)
    if told is None or by_conditions is None or by_conditions.word is not told.word:
        return told
    return by_conditions


def _by_conditions(status: CustomStatus) -> Told | None:
    true = [one for one in _conditions(status.conditions) if one.true]
    for word in _CONDITIONS:
        for one in true:
            if WORDS.get(one.type.lower()) is word:
                return Told(
                    word=word,
                    text=one.type,
                    reason=one.reason if one.reason != one.type else "",
                    message=one.message,
                    at=unix_time(one.last_transition_time),
                )
    return _unsuccessful(status)


def _unsuccessful(status: CustomStatus) -> Told | None:
    """Kinds that say `Succeeded` is false when they have failed, and when: Tekton and its like."""
    if not status.completion_time:
        return None
    for one in _conditions(status.conditions):
        if one.type == "Succeeded" and one.status == "False":
            at = unix_time(_text(status.completion_time))
            return Told(
                word=Word.FAILED, text="Failed", reason=one.reason, message=one.message, at=at
            )
    return None


def _conditions(told: Any) -> Iterator[Condition]:
    for one in _listed(told):
        try:
            yield msgspec.convert(one, Condition)
        except msgspec.ValidationError:
            continue


def _replicated(custom: Custom) -> list[dict[str, Any]]:
    jobs = _listed(_status(custom).replicated_jobs_status)
    return [one for one in jobs if isinstance(one, dict)]


def _status(custom: Custom) -> CustomStatus:
    return custom.status if isinstance(custom.status, CustomStatus) else CustomStatus()


def _listed(told: Any) -> list[Any]:
    return told if isinstance(told, list) else []


def _text(told: Any) -> str:
    return told if isinstance(told, str) else ""


def _number(told: Any) -> float:
    return told if isinstance(told, int | float) else 0
