"""What a script saw, by name, for the tests to read: `@fact` runs a function there and then.

    @fact
    def tags(): return run.tags

A function that fails leaves its traceback as the fact, so that one fault does not hide the others.
"""

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_seen: dict[str, Any] = {}


def fact(function: Callable[[], Any]) -> None:
    """Run a function and keep what it returns under its name."""
    try:
        _seen[function.__name__] = function()
    except Exception as error:  # noqa: BLE001 - told to the test, which fails by it
        told = traceback.format_exception(error, limit=-2, chain=False)
        _seen[function.__name__] = "".join(told)


def tell() -> None:
    """Write every fact to the file that the command line names first."""
    Path(sys.argv[1]).write_text(json.dumps(_seen, default=str))
