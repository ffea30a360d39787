"""Fields that an API server did not keep of a manifest: those that it does not know.

Since Kubernetes 1.25 it refuses them where it is asked to (`fieldValidation`). Older ones drop them
and say nothing: what they kept is compared with what they were given.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from launch_async.adapters.runners.kubernetes.fields import Document, Path, place

STRICT_SINCE = (1, 25)
MAX_NAMED = 5

_EMPTY: tuple[object, ...] = (None, "", 0, False, [], {})
"""Values that mean the same as none, so that an API server may leave them out."""


class _Version(msgspec.Struct, frozen=True):
    major: str = ""
    minor: str = ""


def refuses_unknown_fields(version: bytes) -> bool:
    """Whether an API server of this version (its `/version`) does so when asked to."""
    try:
        said = msgspec.json.decode(version, type=_Version)
        number = (int(said.major), int(said.minor.rstrip("+")))
    except (msgspec.MsgspecError, ValueError):
        return True  # nobody knows: it is believed to be no older than most
    return number >= STRICT_SINCE


def dropped_warning(sent: Document, kept: bytes) -> str:
    """What an item's user should know of what was not kept; empty: all was."""
    try:
        document = msgspec.json.decode(kept)
    except msgspec.DecodeError:
        return ""
    paths = sorted({place(path) for path in _dropped(sent, document, ())})
    if not paths:
        return ""
    more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
    return (
        f"The cluster does not know {', '.join(paths[:MAX_NAMED])}{more} of {sent['kind']} and"
        " leaves it out: is it misspelt?"
    )


def _dropped(sent: Any, kept: Any, path: Path) -> Iterator[Path]:
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            if key in kept:
                yield from _dropped(value, kept[key], (*path, key))
            elif value not in _EMPTY:
                yield (*path, key)
    elif isinstance(sent, list) and isinstance(kept, list):
        named = {one.get("name"): one for one in kept if isinstance(one, dict)}
        for index, value in enumerate(sent):
            other = named.get(value.get("name")) if isinstance(value, dict) else None
            if other is None and len(kept) == len(sent):
                other = kept[index]
            if other is not None:
                yield from _dropped(value, other, (*path, index))
