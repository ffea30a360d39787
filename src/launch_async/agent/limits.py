"""The limits of an agent as its configuration sets them, and what a new one changes."""

from collections.abc import Mapping

import msgspec

from launch_async.agent.polled import Pace
from launch_async.config.model import LaunchConfig
from launch_async.domain.ids import QueueRef

NO_LIMIT = -1


class QueueLimit(msgspec.Struct, frozen=True):
    """One queue's part in the agent."""

    ref: QueueRef
    max_jobs: int = NO_LIMIT
    weight: float = 1.0
    paused: bool = False


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of one agent; -1 is no limit."""

    queues: Mapping[QueueRef, QueueLimit]
    max_jobs: int
    max_schedulers: int = 1
    waiting: int = 8
    """Items taken but not launched, over all queues."""
    targets: Mapping[str, int] = {}
    """By resource type; one that is not named has no limit of its own."""


def limits_of(config: LaunchConfig, *, entity: str, project: str) -> Limits:
    """The limits that this configuration sets."""
    queues = (
        QueueLimit(
            ref=QueueRef(entity, project, queue.name),
            max_jobs=queue.max_jobs,
            weight=queue.weight,
            paused=queue.paused,
        )
        for queue in config.queue_configs()
    )
    return Limits(
        queues={queue.ref: queue for queue in queues},
        max_jobs=config.max_jobs,
        max_schedulers=config.max_schedulers,
        waiting=config.agent.waiting,
        targets={name: target.max_jobs for name, target in config.agent.targets.items()},
    )


def pace_of(config: LaunchConfig) -> Pace:
    """The pauses that this configuration sets."""
    poll = config.agent.poll
    return Pace(poll=poll, poll_max=max(poll, config.agent.poll_max))


def below(limit: int, used: int) -> bool:
    """Whether one more fits."""
    return limit == NO_LIMIT or used < limit
