"""What the logins of the three clouds share: their libraries are loaded late, and never block."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from launch_async.adapters.registries.denials import NothingHere, unusable
from launch_async.domain.errors import Unavailable

CLOUD_TIMEOUT_SECONDS = 45.0
"""For one token of a cloud, with its library's own retries."""
MAX_TEXT = 300

T = TypeVar("T")


def load(module: str, *, extra: str, host: str) -> Any:
    """A cloud's library; it takes a while, so not on the loop.

    Raises:
        NothingHere: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
    remedy = f"Install it where the agent runs: pip install 'launch-async[{extra}]'"
    raise unusable(host, f"the Python package {package} is missing", remedy, kind=NothingHere)


async def in_thread(work: Callable[[], T], cloud: str) -> T:
    """What blocking `work` gives; a thread that hangs is waited for no longer than this.

    Raises:
        Unavailable: it took too long.
    """
    with anyio.move_on_after(CLOUD_TIMEOUT_SECONDS):
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    raise too_slow(cloud)


def too_slow(cloud: str) -> Unavailable:
    """The error of a cloud that gave no token in time."""
    return Unavailable(f"{cloud} gave no token in {CLOUD_TIMEOUT_SECONDS:.0f} s")


def first_words(error: BaseException) -> str:
    """The first line of an error's text, of bounded length."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:MAX_TEXT]
