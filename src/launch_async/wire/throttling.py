"""What services say about how often they may be called: Retry-After and rate-limit headers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from launch_async.kit.clock import unix_now

MAX_RETRY_AFTER_SECONDS = 3600.0
"""What a Retry-After is believed to; more is a mistake."""

_PREFIXES = ("RateLimit", "X-RateLimit")
_LEAST_DATE = 1_000_000_000
"""`X-RateLimit-Reset` is seconds from now with some services, Unix time with others."""


class Remaining(msgspec.Struct, frozen=True, kw_only=True):
    """So many calls until the service's count begins anew."""

    calls: int
    reset_seconds: float


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long the service asks to be left alone; None when it does not, or makes no sense."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is None:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        if moment.tzinfo is None:  # "-0000": a date of nowhere, which HTTP means as UTC
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return _within_reason(seconds)


def remaining_calls(headers: Mapping[str, str]) -> Remaining | None:
    """What `RateLimit-*` or `X-RateLimit-*` say [source: wire-contract.md §1.6; RFC drafts]."""
    for prefix in _PREFIXES:
        calls = _number(headers.get(f"{prefix}-Remaining", ""))
        reset = _number(headers.get(f"{prefix}-Reset", ""))
        if calls is not None and reset is not None:
            seconds = reset - unix_now() if reset >= _LEAST_DATE else reset
            return Remaining(calls=int(min(calls, 1e9)), reset_seconds=_within_reason(seconds))
    return None


def _number(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


def _within_reason(seconds: float) -> float:
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)
