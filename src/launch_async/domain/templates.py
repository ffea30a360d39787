"""Whether a value may have come from a queue's template: `{{name}}` stands for a variable's value.

A placeholder that is a whole string stands for the typed value; in a longer string it is text.
"""

import re
from collections.abc import Mapping
from typing import Any

PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}", re.ASCII)
MAX_TEXT = 1 << 12
"""Longest text that is compared with a template; longer ones are said not to come from one."""

_NUMBER = frozenset("0123456789+-.eE")
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "bool": (bool,),
    "integer": (int,),
    "int": (int,),
    "number": (int, float),
    "float": (int, float),
}
_NUMBER_TYPES = frozenset({"integer", "int", "number", "float"})


def could_be(template: str, value: Any, variables: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether some values of the variables make `template` this value.

    `variables` has a JSON Schema for each; placeholders of other names are plain text.
    """
    parts = _parts(template, variables)
    if len(parts) == 1 and not isinstance(parts[0], str):
        return _fits(value, parts[0])
    return isinstance(value, str) and len(value) <= MAX_TEXT and _matches(parts, value)


def _parts(
    template: str, variables: Mapping[str, Mapping[str, Any]]
) -> list[str | Mapping[str, Any]]:
    parts: list[str | Mapping[str, Any]] = []
    end = 0
    for found in PLACEHOLDER.finditer(template):
        if found[1] in variables:
            parts += [template[end : found.start()], variables[found[1]]]
            end = found.end()
    parts.append(template[end:])
    return [part for part in parts if part != ""]


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """As the service enforces it: type, enum, minimum and maximum."""
    wanted = _TYPES.get(str(schema.get("type")), (str,))
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        return False
    if "enum" in schema and value not in (schema["enum"] or ()):
        return False
    if isinstance(value, str | bool):
        return True
    low, high = (schema.get(bound) for bound in ("minimum", "maximum"))
    return (low is None or value >= low) and (high is None or value <= high)


def _matches(parts: list[str | Mapping[str, Any]], text: str) -> bool:
    """Walk over the text with all places at once where a part may end: linear, however many."""
    ends = {0}
    for part in parts:
        if isinstance(part, str):
            ends = {end + len(part) for end in ends if text.startswith(part, end)}
        elif part.get("enum"):
            words = [_text(word) for word in part["enum"]]
            ends = {end + len(word) for end in ends for word in words if text.startswith(word, end)}
        else:
            numeric = str(part.get("type")) in _NUMBER_TYPES
            ends = _numbers(ends, text) if numeric else set(range(min(ends), len(text) + 1))
        if not ends:
            return False
    return len(text) in ends


def _numbers(ends: set[int], text: str) -> set[int]:
    """Where a number may end that begins at one of `ends`."""
    reached: set[int] = set()
    for start in sorted(ends):
        place = start
        while place not in reached and place < len(text) and text[place] in _NUMBER:
            reached.add(place)
            place += 1
        reached.add(place)
    return reached


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
