"""JSON as W&B's clients write it: strict first, then with what Python and Go let through."""

import json
import re
from typing import Any

import msgspec

MAX_INT = 2**63 - 1
MAX_PLAIN_DEPTH = 200  # SQLite gives up at a thousand

LONG_NUMBER = re.compile(r"[0-9]{300}")
FAR_EXPONENT = re.compile(r"[eE][-+]?[0-9]{3}")


def read_json(text: str) -> Any:
    """Parse JSON that may hold NaN, Infinity, halves of surrogate pairs and huge numbers.

    A config such as {"lr": NaN} is no JSON, yet a refusal would end the user's script. The result
    can always be written as strict JSON again. Raises ValueError for text that is no JSON at all.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        pass
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    try:
        return _clean(json.loads(text))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def plain_copy(text: str) -> str | None:
    """Return a JSON object as both databases' own functions can read it; None: it is that already.

    NaN and Infinity are null there. Raises ValueError for text that is no JSON object.
    """
    strict = True
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        document, strict = read_json(text), False
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if strict and not _is_odd(text) and not _is_deep(document, text):
        return None
    return msgspec.json.encode(plain(document)).decode()


def plain(value: Any, depth: int = MAX_PLAIN_DEPTH) -> Any:
    """Return parsed JSON without what a database refuses or reads otherwise."""
    match value:
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        case dict() | list() if depth == 0:
            return None
        case dict():
            return {plain(key): plain(inner, depth - 1) for key, inner in value.items()}
        case list():
            return [plain(inner, depth - 1) for inner in value]
        case int() if not -MAX_INT <= value <= MAX_INT:
            return _as_float(value)
        case _:
            return value


def _is_odd(text: str) -> bool:
    """Tell whether a database may read JSON otherwise, or not at all.

    SQLite 3.40 compares keys without undoing their escapes; PostgreSQL refuses an escaped NUL, and
    numbers beyond its own range.
    """
    return (
        "\\" in text
        or LONG_NUMBER.search(text) is not None
        or FAR_EXPONENT.search(text) is not None
    )


def _is_deep(document: dict[str, Any], text: str) -> bool:
    if text.count("{") + text.count("[") <= MAX_PLAIN_DEPTH:
        return False
    level: list[Any] = [document]
    for _ in range(MAX_PLAIN_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    parts = value.values() if isinstance(value, dict) else value
    return [part for part in parts if isinstance(part, dict | list)]


def _clean(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_clean(key): _clean(inner) for key, inner in value.items()}
        case list():
            return [_clean(inner) for inner in value]
        case int() if not -MAX_INT <= value <= MAX_INT:
            return _as_float(value)
        case _:
            return value


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
