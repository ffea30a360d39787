"""The exception tree, split by who must act.

```
LaunchError
 ├─ ItemError      this item's user must act: the item fails, everything else goes on
 ├─ Unavailable    somebody else, later: retried in adapters with jitter and an end
 │   └─ NotBegun   a launch that certainly has left nothing behind
 └─ AgentUnfit     a person must act now: the agent drains and exits with 3
```
"""

from enum import StrEnum


class Stage(StrEnum):
    """Where an item failed, in the words of W&B's `failRunQueueItem` (launch-features.md R11)."""

    AGENT = "agent"
    BUILD = "build"
    RUN = "run"


class Reason(StrEnum):
    """Stable codes for why an item ended, for people's alerts and for metrics' labels.

    docs/reasons.md says what to do about each.
    """

    SPEC_INVALID = "spec_invalid"
    JOB_NOT_FOUND = "job_not_found"
    JOB_INVALID = "job_invalid"
    SOURCE_UNAVAILABLE = "source_unavailable"
    FORBIDDEN = "forbidden"
    NO_RUN_KEY = "no_run_key"
    TARGET_UNSUPPORTED = "target_unsupported"
    RESOURCE_ARGS_INVALID = "resource_args_invalid"
    IMAGE_NOT_FOUND = "image_not_found"
    REGISTRY_DENIED = "registry_denied"
    BUILD_FAILED = "build_failed"
    LAUNCH_FAILED = "launch_failed"
    BACKEND_UNAVAILABLE = "backend_unavailable"
    START_TIMEOUT = "start_timeout"
    RUN_TIMEOUT = "run_timeout"
    PREEMPTED = "preempted"
    NO_RUN = "no_run"
    EXIT_CODE = "exit_code"
    KILLED = "killed"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    VANISHED = "vanished"
    STOPPED = "stopped"
    INTERNAL = "internal"


class LaunchError(Exception):
    """Root of every error that this package raises on purpose; its text may be shown to users."""


class ItemError(LaunchError):
    """This item cannot go on; the text names the thing and the remedy."""

    def __init__(self, message: str, *, reason: Reason, stage: Stage = Stage.AGENT) -> None:
        super().__init__(message)
        self.reason = reason
        self.stage = stage


class Unavailable(LaunchError):
    """A service did not answer usefully; trying later may help."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotBegun(Unavailable):
    """A backend did not begin a run, and nothing of this call can begin it later."""


class AgentUnfit(LaunchError):
    """The agent cannot do its work (bad key, no such queue, broken state); a person must act."""


class ConfigError(LaunchError):
    """A setting is wrong: the text names the file, the line and the remedy. Exit code 2."""


def gravest(error: Exception) -> Exception:
    """The one error that decides when a task group brings several; any other error is itself.

    AgentUnfit concerns most; a fault that nobody foresaw must not hide behind one that we did.
    """
    if not isinstance(error, ExceptionGroup):
        return error
    found = [gravest(part) for part in error.exceptions]
    return min(found, key=_rank)


def _rank(error: Exception) -> int:
    match error:
        case AgentUnfit():
            return 0
        case ItemError():
            return 2
        case Unavailable():
            return 3
        case _:
            return 1


def cannot_listen(address: str, error: OSError, setting: str) -> ConfigError:
    """The error for an address that cannot be listened on, naming the setting to change."""
    return ConfigError(
        f"cannot listen on {address} ({error.strerror}); give another with {setting}"
    )
