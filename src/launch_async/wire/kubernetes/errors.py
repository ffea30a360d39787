"""What an API server says no with, and what it is silent with.

Its refusals are a `Status` in JSON; whatever stands in front of it (a proxy, a load balancer)
answers in words of its own, so that a text is a refusal's message too.
"""

from http import HTTPStatus
from typing import TypeVar

import msgspec

from launch_async.domain.errors import LaunchError, Unavailable

MAX_MESSAGE = 2000

T = TypeVar("T")


class KubeRefused(LaunchError):
    """The API server understood the request and said no; its text is the server's own."""

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        """In Kubernetes' words: `AlreadyExists`, `Forbidden`; "" when somebody else answered."""

    @property
    def not_found(self) -> bool:
        """There is no such object, namespace or kind."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def exists(self) -> bool:
        """An object of this name is there already."""
        return self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """It exists, or is no longer what the request took it for."""
        return self.status == HTTPStatus.CONFLICT

    @property
    def forbidden(self) -> bool:
        """RBAC, a quota or an admission plug-in does not allow it; the message says which."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def expired(self) -> bool:
        """The version or the page asked for is too old to be known: list anew."""
        return self.status == HTTPStatus.GONE

    @property
    def invalid(self) -> bool:
        """The object itself is wrong, whoever sends it."""
        return self.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}


class Silence(Unavailable):
    """A stream was open and brought nothing for as long as it may: nobody may be there."""


class BrokenOff(Unavailable):
    """A stream was open and ended before its end."""


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    retry_after_seconds: float | None = None


class Status(msgspec.Struct, frozen=True):
    """Kubernetes' answer that is no object: of a refused call, or an ERROR event of a watch."""

    code: int | None = None
    reason: str | None = None
    message: str | None = None
    details: _Details | None = None

    @property
    def retry_after_seconds(self) -> float | None:
        """How long it asks to be left alone."""
        return (self.details.retry_after_seconds if self.details else None) or None


def status_of(body: bytes) -> Status:
    """The `Status` in a body; of another body its first words are the message."""
    try:
        return msgspec.json.decode(body, type=Status)
    except msgspec.MsgspecError:
        words = " ".join(body[: 2 * MAX_MESSAGE].decode(errors="replace").split())
        return Status(message=words[:MAX_MESSAGE])


def refusal(code: int, status: Status) -> KubeRefused:
    """The error for a 4xx."""
    message = (status.message or "")[:MAX_MESSAGE] or f"the API server answered {code}"
    return KubeRefused(message, status=code, reason=status.reason or "")


def decoded(content: bytes, of: type[T]) -> T:
    """An answer as this type.

    Raises:
        Unavailable: it is something else; an API server gave no such answer.
    """
    try:
        return msgspec.json.decode(content, type=of)
    except msgspec.MsgspecError as error:
        msg = f"the answer is not what an API server gives ({error}); is a proxy in between?"
        raise Unavailable(msg) from error
