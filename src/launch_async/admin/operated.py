"""What the admin endpoint is given."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from launch_async.domain.secret import Secret
from launch_async.kit.lag import LoopLag
from launch_async.ports.backends import BackendView
from launch_async.ports.control import AgentControl
from launch_async.ports.logs import RunLogs


class Operated(AgentControl, RunLogs, Protocol):
    """The agent behind the endpoint."""


def no_backends() -> Sequence[BackendView]:
    """For an agent whose backends show nothing."""
    return ()


class Operations(msgspec.Struct, frozen=True, kw_only=True):
    """An agent, and what else can be asked and changed over HTTP."""

    agent: Operated
    token: Secret[str] | None = None
    """What changes need; None: they are refused."""
    set_log_level: Callable[[str], None]
    """Raises ConfigError for a word that is no level."""
    backends: Callable[[], Sequence[BackendView]] = no_backends
    lag: LoopLag = msgspec.field(default_factory=LoopLag)
    """Of the agent's loop; the agent measures it."""
