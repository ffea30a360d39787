"""Whose fault it is, read from the words of engines, BuildKit and registries.

The same fault comes as a status here and as a sentence there, in other words with each release;
what is not known is the Dockerfile's fault while building, and the registry's while pushing.
"""

import re
from enum import Enum, auto

from launch_async.adapters.builders.steps import Failure
from launch_async.domain.errors import ItemError, LaunchError, Reason, Stage, Unavailable
from launch_async.domain.image import ImageRef

_MAX_QUOTED = 600


class Fault(Enum):
    """What kind of trouble some words tell of."""

    NO_ROOM = auto()
    AWAY = auto()
    DENIED = auto()
    MISSING = auto()
    OTHER = auto()


_SIGNS = {
    Fault.NO_ROOM: r"no space left on device|disk quota exceeded",
    Fault.AWAY: (
        r"connection (?:refused|reset)|i/o timeout|handshake timeout|deadline exceeded|broken pipe"
        r"|server misbehaving|temporary failure|network is unreachable|no route to host"
        r"|Client\.Timeout|toomanyrequests|too many requests|code = Unavailable|\bEOF\b"
        r"|internal server error|bad gateway|service unavailable|gateway time-?out"
        r"|(?:status(?: code)?(?: \[[^\]]*\])?:?|HTTP code =) ?(?:429|5\d\d)\b"
    ),
    Fault.DENIED: (
        r"unauthorized|no basic auth credentials|authentication required|denied|forbidden"
        r"|insufficient_scope|no active sessions|authorization failed"
    ),
    Fault.MISSING: (
        r"not found|(?:manifest|name) (?:unknown|not known)|does not exist|no such (?:image|host)"
    ),
}
_SIGN_OF = tuple((fault, re.compile(sign, re.IGNORECASE)) for fault, sign in _SIGNS.items())
_EXIT_CODE = re.compile(r"(?:exit code: |non-zero code: |exit status )(\d+)")
_BASE = re.compile(r"\[internal\] load metadata for (\S+)|FROM (?:--\S+ )*(\S+)")
_GONE = re.compile(
    r"rpc error: code = Unavailable|cannot connect to the docker daemon", re.IGNORECASE
)
_PUSHED = re.compile(r"(?:exporting|pushing)\b")
_NOISE = re.compile(
    r"^(?:failed to solve(?: with frontend \S+)?: |failed to build: "
    r"|rpc error: code = \w+ desc = |failed to create LLB definition: )+"
)
_SIGNED_URL = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']+")


def fault_of(words: str) -> Fault:
    """The first sign in the order above; OTHER where there is none."""
    return next((fault for fault, sign in _SIGN_OF if sign.search(words)), Fault.OTHER)


def quoted(words: str) -> str:
    """Somebody else's words for a message: without what always stands before, or signs a URL."""
    text = _SIGNED_URL.sub(r"\1?…", _NOISE.sub("", words.strip()))
    text = text.replace("no active sessions", "it wants a login").rstrip(".")
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"


def build_error(failure: Failure, *, builder: str, image: str) -> LaunchError:
    """The error for a build that failed; `builder` is how people know it."""
    step, words = failure.step, failure.error
    code = _EXIT_CODE.search(words)
    if code is None:
        base = _BASE.match(step.text) if step else None
        if base is not None and fault_of(words) is not Fault.OTHER:
            return pull_error(base[1] or base[2], words)
        if is_push(failure):
            return push_error(image, words)
        if fault_of(words) is Fault.NO_ROOM:
            return Unavailable(f"{builder} has no room left: {quoted(words)}. Free some there.")
        if _GONE.search(words) or (step is None and fault_of(words) is Fault.AWAY):
            return Unavailable(f"{builder} does not answer: {quoted(words)}.")
    where = f"Step {step.place} of the Dockerfile" if step and step.place else "The build"
    how = f"exited with {code[1]}" if code else "failed"
    what = f": {step.short}" if step and step.place else ""
    said = "" if code else f"\n{quoted(words)}"
    printed = "\nThe last that it printed (build.log has all of it):"
    tail = "\n".join((printed, *failure.tail)) if failure.tail else ""
    return build_failed(f"{where} {how}{what}{said}{tail}")


def build_failed(text: str) -> ItemError:
    """Where the text says all that there is to say."""
    return _failed(text, Reason.BUILD_FAILED)


def is_push(failure: Failure) -> bool:
    """Whether it was made, and its registry did not take it."""
    step = failure.step
    return step is not None and bool(_PUSHED.match(step.text)) and "push" in failure.error


def is_denied(failure: Failure) -> bool:
    """Whether it was for want of a login."""
    return fault_of(failure.error) is Fault.DENIED


def pull_error(image: str, words: str) -> LaunchError:
    """The error for a base image that could not be had."""
    host = _host_of(image)
    match fault_of(words):
        case Fault.DENIED:
            return _failed(
                f"The base image {image} may not be pulled, or is not there: {quoted(words)}."
                f" Check its name, and give the agent a login for {host}.",
                Reason.REGISTRY_DENIED,
            )
        case Fault.MISSING | Fault.OTHER:
            return _failed(
                f"The base image {image} cannot be found: {quoted(words)}."
                " Check its name, tag and platform.",
                Reason.IMAGE_NOT_FOUND,
            )
        case Fault.AWAY | Fault.NO_ROOM:
            return Unavailable(f"The base image {image} could not be pulled: {quoted(words)}.")


def push_error(image: str, words: str) -> LaunchError:
    """The error for an image that its registry did not take."""
    host = _host_of(image)
    match fault_of(words):
        case Fault.DENIED:
            return _failed(
                f"The registry {host} does not let this agent push {image}: {quoted(words)}."
                " Give the agent a login that may write there.",
                Reason.REGISTRY_DENIED,
            )
        case Fault.MISSING:
            return build_failed(
                f"The registry {host} has no place for {image}: {quoted(words)}."
                " Make the repository there, or correct `builder.destination`."
            )
        case _:
            return Unavailable(f"The registry {host} did not take {image}: {quoted(words)}.")


def _host_of(image: str) -> str:
    try:
        return ImageRef.parse(image).host
    except ValueError:
        return image.partition("/")[0]


def _failed(message: str, reason: Reason) -> ItemError:
    return ItemError(message, reason=reason, stage=Stage.BUILD)
