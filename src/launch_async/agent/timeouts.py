"""How long runs may take to start and to run: their queue's word, else the agent's."""

from collections.abc import Mapping

import msgspec

from launch_async.config.model import LaunchConfig
from launch_async.domain.ids import QueueRef
from launch_async.domain.run import StartCause


class TimeLimit(msgspec.Struct, frozen=True):
    """A limit and the setting that a person changes to get another one."""

    seconds: float
    """0: no limit."""
    setting: str

    def __str__(self) -> str:
        return f"{self.seconds:g} s (`{self.setting}`)"


class QueueTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue says; None leaves it to the agent."""

    start_seconds: float | None = None
    run_seconds: float | None = None


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of one agent."""

    start_seconds: float = 0.0
    run_seconds: float = 0.0
    settle_seconds: float = 60.0
    """What a run of an earlier life gets at least, however long ago its launch seems: its backend
    may be about to say that it started or ended."""
    queues: Mapping[str, QueueTimeouts] = {}
    """By the queue's name; an agent's queues have one owner."""
    causes: Mapping[StartCause, float] = {}
    """Seconds that a run may wait for one cause without a break; 0 or none: no such limit."""

    def start(self, queue: QueueRef) -> TimeLimit:
        """From launch to running, without the time in which a run is held back on purpose."""
        own = self.queues.get(queue.name, QueueTimeouts()).start_seconds
        return _limit(own, self.start_seconds, queue, "start_timeout")

    def wait(self, cause: StartCause | None) -> TimeLimit:
        """From when its backend says that a run waits for this."""
        seconds = 0.0 if cause is None else self.causes.get(cause, 0.0)
        return TimeLimit(seconds, f"agent.start_timeouts.{cause}")

    def run(self, queue: QueueRef) -> TimeLimit:
        """From launch to the end."""
        own = self.queues.get(queue.name, QueueTimeouts()).run_seconds
        return _limit(own, self.run_seconds, queue, "run_timeout")


def timeouts_of(config: LaunchConfig) -> Timeouts:
    """What a configuration says of them."""
    return Timeouts(
        start_seconds=config.agent.start_timeout,
        run_seconds=config.agent.run_timeout,
        causes={
            StartCause(name): seconds
            for name, seconds in msgspec.structs.asdict(config.agent.start_timeouts).items()
        },
        queues={
            queue.name: QueueTimeouts(
                start_seconds=queue.start_timeout, run_seconds=queue.run_timeout
            )
            for queue in config.queue_configs()
        },
    )


def _limit(own: float | None, agents: float, queue: QueueRef, name: str) -> TimeLimit:
    if own is None:
        return TimeLimit(agents, f"agent.{name}")
    return TimeLimit(own, f"{name} of the queue {queue.name}")
