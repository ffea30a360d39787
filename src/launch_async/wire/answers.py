"""What the body of an answer says: the parts of a GraphQL answer, and the service's own words."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

MAX_ERROR_CHARACTERS = 2000


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an operation's fields, each by its name in the answer."""

    data: Mapping[str, Any]
    errors: Mapping[str, str]


def decode_answer(content: bytes) -> dict[str, Any] | None:
    """A GraphQL answer, whose `data` is an object here even if it has none; None: it is no answer.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        msg = "it is not JSON"
        raise ValueError(msg) from error
    data = answer.get("data") or {} if isinstance(answer, dict) else None
    return {**answer, "data": data} if isinstance(data, dict) else None


def parts_of(answer: Mapping[str, Any]) -> Parts | None:
    """What came of each field of the operation; None: an error is about the whole of it."""
    errors: Any = answer.get("errors") or []
    found: dict[str, str] = {}
    for error in errors if isinstance(errors, list) else [errors]:
        path = error.get("path") if isinstance(error, dict) else None
        if not isinstance(path, list) or not path:
            return None
        found[str(path[0])] = error_text({"errors": [error]})
    return Parts(data=answer["data"], errors=found)


def has_parts(content: bytes) -> bool:
    """Whether the operation was done, but for the parts that the errors name."""
    try:
        answer = decode_answer(content)
    except ValueError:
        return False
    return answer is not None and bool(answer["data"]) and parts_of(answer) is not None


def error_text(answer: Mapping[str, Any]) -> str:
    """The text of the answer's errors, of which there are some."""
    errors: Any = answer["errors"]
    texts = [
        str(error.get("message", "no message")) if isinstance(error, dict) else str(error)
        for error in (errors if isinstance(errors, list) else [errors])
    ]
    return "; ".join(texts)[:MAX_ERROR_CHARACTERS]


def error_text_of(content: bytes, status: int) -> str:
    """Why a request was refused, as far as the body or the status say it."""
    try:
        answer = msgspec.json.decode(content)
        if isinstance(answer, dict):
            return error_text(answer) if answer.get("errors") else str(answer["error"])
    except (msgspec.DecodeError, RecursionError, KeyError):
        pass
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "no text"
