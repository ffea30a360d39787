"""Macros `${name}` in a resource config, replaced from an explicit table and nothing else.

Unknown names stay as they are and results are not looked into again (launch-features.md §1.11);
the agent's own environment is never a source, since whoever may edit a config could read it.
"""

import re
from collections.abc import Mapping
from typing import Any

_MACRO = re.compile(r"\$\{(\w+)\}")


def fill_macros(value: Any, table: Mapping[str, str]) -> Any:
    """`value` with every known macro in its strings replaced; keys are left alone."""
    match value:
        case str():
            return _MACRO.sub(lambda found: table.get(found[1], found[0]), value)
        case dict():
            return {key: fill_macros(part, table) for key, part in value.items()}
        case list():
            return [fill_macros(part, table) for part in value]
        case _:
            return value
