"""How an item's resource arguments lie over its queue's: objects merge, all else is replaced."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new document; lists and scalars of `over` replace those of `base`.

    A null in `over` is a value like any other. Neither argument is changed or shared.
    """
    merged: dict[str, Any] = {key: deepcopy(value) for key, value in base.items()}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = deepcopy(value)
    return merged
