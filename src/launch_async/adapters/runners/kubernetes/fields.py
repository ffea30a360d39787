"""Reading manifests, which are JSON that people wrote: errors name the place and the remedy."""

import math
import re
from collections.abc import Mapping
from typing import Any

from launch_async.domain.errors import ItemError, Reason

Path = tuple[str | int, ...]
Document = dict[str, Any]

MAX_DEPTH = 80
"""No real manifest is nested so deep; Python's stack ends at a multiple of it."""
MAX_PLACE_CHARACTERS = 200
MAX_QUOTED_CHARACTERS = 80

_PLAIN = re.compile(r"[\w-]+", re.ASCII)
_INT64 = 1 << 63


def invalid(path: Path, said: str) -> ItemError:
    """The error for a value that is not what it should be; `said` goes on after the place."""
    return ItemError(
        f"Resource config of kubernetes: {place(path)} {said}", reason=Reason.RESOURCE_ARGS_INVALID
    )


def place(path: Path) -> str:
    """Where in a manifest, as people write it: `spec.template.spec.containers[0].env[2]`."""
    text = ""
    for part in path:
        if isinstance(part, str) and _PLAIN.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    if len(text) > MAX_PLACE_CHARACTERS:
        text = f"{text[:MAX_PLACE_CHARACTERS]}…"
    return f"`{text}`" if text else "the whole of it"


def quoted(text: str) -> str:
    """A text that somebody wrote, for an error: short, and without characters that do not print."""
    return repr(text if len(text) <= MAX_QUOTED_CHARACTERS else f"{text[:MAX_QUOTED_CHARACTERS]}…")


def copied(value: Any, path: Path = ()) -> Any:
    """A deep copy that shares nothing with `value` and can be sent as JSON.

    Raises:
        ItemError: something in it is no JSON.
    """
    if len(path) > MAX_DEPTH:
        raise invalid(path[:MAX_DEPTH], f"is nested deeper than {MAX_DEPTH} levels: flatten it.")
    if isinstance(value, str):
        return _encodable(value, path)
    if isinstance(value, Mapping):
        return {_key(key, path): copied(part, (*path, str(key))) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [copied(part, (*path, index)) for index, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid(path, f"is {value}, which is no number of JSON: write a finite one.")
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise invalid(path, "is a number of more than 64 bits: write it as a text.")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise invalid(path, f"is a {type(value).__name__}, which is no JSON: write it as a text.")


def read_object(parent: Document, key: str, path: Path) -> Document:
    """The object at `key`; an empty one of its own when there is none."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid((*path, key), f"must be an object, not {_kind(value)}.")
    return value


def make_object(parent: Document, key: str, path: Path) -> Document:
    """The object at `key`, which is put there when there is none."""
    value = read_object(parent, key, path)
    parent[key] = value
    return value


def read_objects(parent: Document, key: str, path: Path) -> list[Document]:
    """The list of objects at `key`; an empty one of its own when there is none."""
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid((*path, key), f"must be a list, not {_kind(value)}.")
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise invalid((*path, key, index), f"must be an object, not {_kind(entry)}.")
    return value


def read_text(parent: Document, key: str, path: Path) -> str | None:
    """The text at `key`; None when there is none or it is empty."""
    value = parent.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise invalid((*path, key), f"must be a text, not {_kind(value)}.")
    return value


def as_text(value: Any, path: Path) -> str:
    """`value` as text, where Kubernetes takes nothing else.

    A number or a boolean is what a template variable becomes that is the whole of a text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise invalid(path, f"must be a text, not {_kind(value)}.")


def as_texts(given: Document, path: Path) -> dict[str, str]:
    """Labels or annotations; those that are null are left out."""
    return {key: as_text(value, (*path, key)) for key, value in given.items() if value is not None}


def _key(key: Any, path: Path) -> str:
    if not isinstance(key, str):
        raise invalid((*path, str(key)), "is a key that is no text: put quotes around it.")
    return _encodable(key, path)


def _encodable(text: str, path: Path) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid(
            path, "has half of a surrogate pair, which is no text: type it anew."
        ) from None
    return text


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else "a number"
