"""The garbage collector of a process that lives for months and holds many small objects."""

import gc

YOUNG_OBJECTS = 50_000
"""Objects made between two looks at the young ones (CPython's default: 700). What requests and
items leave behind is freed by counting; cycles are few, and a look at 10,000 open items costs."""


def settle_heap() -> None:
    """Call once all is loaded: what stays for the process's life is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
