"""JSON as W&B's clients write it: strict first, then with what Python and Go let through."""

import json
from typing import Any

import msgspec

MAX_INT = 2**63 - 1


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
