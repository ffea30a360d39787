"""The post-mortem bundle of a failed item: all that its user and a person on call want to know.

```
<item>/error/error.log   facts, message and the log's last lines; the path is W&B's
<item>/bundle.json       the same facts for programs, with events and timings
<item>/build.log         all that the build of its image printed, if there was one
```
"""

import os
import socket
from itertools import pairwise
from typing import Any

import msgspec

from launch_async import __version__
from launch_async.agent.masks import masked
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.outcome import Outcome
from launch_async.ports.journal import Entry

ERROR_FILE = "error/error.log"
BUNDLE_FILE = "bundle.json"
BUILD_FILE = "build.log"
MAX_BUILD_LOG_BYTES = 32 << 20
"""The last of a longer log."""
LOG_MARK = ". Last lines of its log:"
"""Where a message goes on with what the bundle has in full."""


def without_log(outcome: Outcome) -> str:
    """The message without the end of the run's log."""
    return outcome.message.split(LOG_MARK)[0]


def bundle_of(
    tracked: Tracked, outcome: Outcome, tools: Tools, *, build_log: str = ""
) -> dict[str, bytes]:
    """The files by their paths below the item's folder; without its keys."""
    facts = _facts(tracked, outcome, tools)
    texts = {
        ERROR_FILE: _error_file(facts, outcome),
        BUNDLE_FILE: msgspec.json.format(msgspec.json.encode(facts)).decode() + "\n",
    }
    if build_log:
        texts[BUILD_FILE] = build_log
    item, key = tracked.item, tools.api_key
    return {path: masked(text, item, key).encode() for path, text in texts.items()}


def read_build_log(tracked: Tracked) -> str:
    """Blocks. Empty when there is none, or none any more."""
    path = tracked.build_log
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_BUILD_LOG_BYTES))
            return file.read(MAX_BUILD_LOG_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _facts(tracked: Tracked, outcome: Outcome, tools: Tools) -> dict[str, Any]:
    item, entry = tracked.item, tracked.entry
    handle = entry.handle
    return {
        "item": item.id,
        "queue": str(item.queue),
        "run": str(item.run),
        "job": item.spec.job or item.spec.image,
        "resource": item.spec.resource,
        "stage": outcome.stage.value,
        "reason": outcome.reason and outcome.reason.value,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "message": without_log(outcome),
        "preemptions": item.spec.resume_count,
        "backend": None if handle is None else {"name": handle.backend, **handle.data},
        "agent": {
            "identity": tools.identity,
            "version": __version__,
            "host": socket.gethostname(),
        },
        "popped_at": item.popped_at,
        "launched_at": entry.launched and entry.launched.unix,
        "seconds": _seconds(entry),
        "events": [{"at": event.at, "what": event.what} for event in entry.events],
        "warnings": list(tracked.warnings),
        "log_lines": len(outcome.log_tail),
    }


def _error_file(facts: dict[str, Any], outcome: Outcome) -> str:
    shown = ("item", "queue", "run", "job", "stage", "reason", "exit_code", "signal")
    lines = [
        f"{name.replace('_', ' ')}: {facts[name]}" for name in shown if facts[name] is not None
    ]
    lines += ["", str(facts["message"])]
    if outcome.log_tail:
        lines += ["", f"last {len(outcome.log_tail)} lines of the log:", *outcome.log_tail]
    return "\n".join(lines) + "\n"


def _seconds(entry: Entry) -> dict[str, float]:
    """How long each event lasted until the next one."""
    spans: dict[str, float] = {}
    for one, following in pairwise(entry.events):
        spans[one.what] = round(spans.get(one.what, 0.0) + following.at - one.at, 3)
    return spans
