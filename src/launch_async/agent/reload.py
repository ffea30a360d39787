"""Reload: what a new configuration changes now, and what only the next start changes."""

from collections.abc import Iterator

import msgspec

from launch_async.agent.timeouts import timeouts_of
from launch_async.agent.tools import Tools
from launch_async.config.model import LaunchConfig

LIVE = frozenset(
    {
        "max_jobs",
        "max_schedulers",
        "secure_mode",
        "stopped_run_timeout",
        "agent.builds",
        "agent.grace",
        "agent.patience",
        "agent.poll",
        "agent.poll_max",
        "agent.item_retries",
        "agent.run_timeout",
        "agent.start_timeout",
        "agent.start_timeouts",
        "agent.targets",
        "agent.waiting",
    }
)
"""Settings that a running agent takes on; those of items count for items that begin after it."""
LIVE_OF_QUEUES = frozenset({"max_jobs", "weight", "paused", "start_timeout", "run_timeout"})


def changes(before: LaunchConfig, after: LaunchConfig) -> list[str]:
    """What differs, in words; what cannot change now is said to wait."""
    return [*_queue_changes(before, after), *_other_changes(before, after)]


def taken_on(before: LaunchConfig, after: LaunchConfig) -> LaunchConfig:
    """`after`, but what cannot change now as it was: that goes on being a difference."""
    agent = {
        name: getattr(after.agent if f"agent.{name}" in LIVE else before.agent, name)
        for name in before.agent.__struct_fields__
    }
    top = {name: getattr(after, name) for name in before.__struct_fields__ if name in LIVE}
    section = msgspec.structs.replace(before.agent, **agent)
    return msgspec.structs.replace(before, **top, queues=after.queues, agent=section)


def tuned(tools: Tools, config: LaunchConfig) -> Tools:
    """The tools of the items that begin from now on. Build slots change for all at once."""
    tools.builds.total_tokens = config.agent.builds
    return msgspec.structs.replace(
        tools,
        patience_seconds=config.agent.patience,
        secure_mode=config.secure_mode,
        stop_grace_seconds=config.stopped_run_timeout,
        timeouts=timeouts_of(config),
        item_retries=config.agent.item_retries,
    )


def _queue_changes(before: LaunchConfig, after: LaunchConfig) -> Iterator[str]:
    old = {queue.name: queue for queue in before.queue_configs()}
    new = {queue.name: queue for queue in after.queue_configs()}
    for name in sorted(old.keys() - new.keys()):
        yield f"queue {name} removed: its open items go on"
    for name in sorted(new.keys() - old.keys()):
        yield f"queue {name} added"
    for name in sorted(old.keys() & new.keys()):
        for field in old[name].__struct_fields__:
            was, now = getattr(old[name], field), getattr(new[name], field)
            if was != now:
                yield _said(f"queue {name}: {field}", was, now, live=field in LIVE_OF_QUEUES)


def _other_changes(before: LaunchConfig, after: LaunchConfig) -> Iterator[str]:
    old, new = _flat(before), _flat(after)
    for name in sorted(old):
        if old[name] != new[name]:
            yield _said(name, old[name], new[name], live=name in LIVE)


def _flat(config: LaunchConfig) -> dict[str, object]:
    """Settings by dotted name, the queues left out."""
    top = {name: getattr(config, name) for name in config.__struct_fields__}
    del top["queues"]
    agent = top.pop("agent")
    return top | {f"agent.{name}": getattr(agent, name) for name in agent.__struct_fields__}


def _said(name: str, was: object, now: object, *, live: bool) -> str:
    shown = ["not set" if value is None else msgspec.to_builtins(value) for value in (was, now)]
    return f"{name}: {shown[0]} -> {shown[1]}" + ("" if live else " (at the next start)")
