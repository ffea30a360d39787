"""Opaque GraphQL ids: base64 of a kind and its parts, so that an id of another kind is refused."""

import base64
import binascii

from launch_async.server.errors import ApiError

MAX_NUMBER = 2**31 - 1  # what a row id can be on PostgreSQL
MAX_DIGITS = len(str(MAX_NUMBER))


def encode_id(kind: str, *parts: str | int) -> str:
    """Return the opaque id of one thing; numeric parts keep it free of `-` and `_`."""
    text = ":".join([kind, *(str(part) for part in parts)])
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_id(value: str, kind: str) -> tuple[str, ...]:
    """Return the parts behind an id; 404 when it is not an id of that kind."""
    found, *parts = _plain(value).split(":")
    if found != kind or not parts:
        raise ApiError(f"{kind} {value!r} not found", status=404)
    return tuple(parts)


def decode_number(value: str, kind: str) -> int:
    """Return the one number behind an id; 404 when there is none."""
    (number,) = decode_numbers(value, kind, 1)
    return number


def decode_numbers(value: str, kind: str, count: int) -> list[int]:
    """Return the numbers behind an id; 404 when they are not that many."""
    numbers = [read_number(part) for part in decode_id(value, kind)]
    known = [number for number in numbers if number is not None]
    if len(known) != count or len(numbers) != count:
        raise ApiError(f"{kind} {value!r} not found", status=404)
    return known


def read_number(text: str) -> int | None:
    """Return the whole number that a text is, None when it is none or no row can have it."""
    if not 1 <= len(text) <= MAX_DIGITS or not text.isascii() or not text.isdigit():
        return None
    number = int(text)
    return number if number <= MAX_NUMBER else None


def encode_run_id(run_name: str, project: str, entity: str) -> str:
    """Return a run's storage id. The sweep scheduler builds the very same text by itself."""
    return base64.b64encode(f"Run:v1:{run_name}:{project}:{entity}".encode()).decode()


def decode_run_id(value: str) -> tuple[str, str, str]:
    """Return (run name, project, entity) of a run's storage id; 404 when it is none."""
    pieces = _plain(value.replace("+", "-").replace("/", "_")).split(":")
    if len(pieces) != 5 or pieces[:2] != ["Run", "v1"]:
        raise ApiError(f"run {value!r} not found", status=404)
    return pieces[2], pieces[3], pieces[4]


def _plain(value: str) -> str:
    try:
        return base64.urlsafe_b64decode(value.encode()).decode()
    except (binascii.Error, ValueError):
        return ""
