"""The settings of an agent, one frozen struct per section.

The top level is W&B's `launch-config.yaml` with its defaults (launch-features.md §1.4); `agent:`,
`loop:` and the objects in `queues:` are ours. Unknown keys are errors, except in `environment`,
`registry` and `builder`, where W&B's agent tolerates them: there they are warnings.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

Limit = Annotated[int, msgspec.Meta(ge=-1)]
"""A number of items; -1 means no limit of its own."""

Seconds = Annotated[float, msgspec.Meta(ge=0)]

DEFAULT_STATE_DIR = "~/.local/state/launch-async"
DEFAULT_ADMIN = "127.0.0.1:8484"


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One queue to poll."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    """Name of the queue, in the agent's entity."""
    max_jobs: Limit = -1
    """Items of this queue at once; -1: only the agent's own `max_jobs` counts."""


class AgentSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What W&B's file has no words for."""

    name: str = ""
    """A name for people, shown with the agent. Empty: the host's name."""
    state_dir: str = DEFAULT_STATE_DIR
    """Folder of the journal, job environments and running processes. One agent per folder; keep it
    on a local disk and across restarts, since running items are found again through it."""
    admin: str = DEFAULT_ADMIN
    """HOST:PORT of the admin endpoint, port 0 for any free one; empty switches it off. It has no
    login: keep it on loopback or on a network of your probes."""
    grace: Seconds = 30.0
    """Seconds that running items get to end after SIGTERM; then they are let go (they keep running
    on their backend and the next start adopts them)."""
    poll: Annotated[float, msgspec.Meta(ge=0.05)] = 5.0
    """Seconds between two looks into a queue that was empty. W&B's agent waits 10."""
    heartbeat: Annotated[float, msgspec.Meta(ge=0.05)] = 10.0
    """Seconds between two reports of the agent's status and between two looks for stop requests."""
    builds: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Environments or images prepared at once; further items wait with their slot."""
    start_timeout: Seconds = 1800.0
    """Seconds a run may take from launch to running before it is ended; 0 switches it off.
    `WANDB_LAUNCH_START_TIMEOUT` overrides it, as for W&B's agent."""


class LaunchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """launch-config.yaml."""

    queues: tuple[str | QueueConfig, ...] = ()
    """Queues to poll: names, or objects with limits of their own."""
    entity: str | None = None
    """Owner of the queues. Default: the login's own entity. `WANDB_ENTITY` overrides it."""
    max_jobs: Limit = 1
    """Items at once over all queues; -1 is no limit. `WANDB_LAUNCH_MAX_JOBS` overrides it."""
    max_schedulers: Limit = 1
    """Sweep schedulers at once; -1 is no limit."""
    secure_mode: bool = False
    """Refuse items that override the entry point of their job."""
    verbosity: Annotated[int, msgspec.Meta(ge=0)] = 0
    """0: one line per change of state; 1 and more: debug lines too."""
    stopped_run_timeout: Annotated[int, msgspec.Meta(ge=0)] = 60
    """Seconds between a stop request for a run and its forced end."""
    environment: dict[str, Any] | None = None
    """Credentials of a cloud: type aws, gcp, azure or local, and region."""
    registry: dict[str, Any] | None = None
    """Image registry (deprecated by W&B in favour of builder.destination)."""
    builder: dict[str, Any] | None = None
    """How images are built: type docker, kaniko or noop."""
    loop: Literal["uvloop", "asyncio"] = "uvloop"
    """Event loop. The process runner does not fork from the loop, so uvloop serves both well."""
    agent: AgentSection = AgentSection()
    """Ours: state, admin endpoint, waits."""

    def queue_configs(self) -> tuple[QueueConfig, ...]:
        """`queues` with plain names made objects, each queue once."""
        made = [
            QueueConfig(name=queue) if isinstance(queue, str) else queue for queue in self.queues
        ]
        return tuple({queue.name: queue for queue in made}.values())

    def unused(self) -> tuple[str, ...]:
        """Settings of W&B's agent that are given but do nothing here yet."""
        given = {
            "max_schedulers": self.max_schedulers != 1,
            "environment": bool(self.environment),
            "registry": bool(self.registry),
            "builder": bool(self.builder),
        }
        return tuple(name for name, is_given in given.items() if is_given)

    @property
    def state_dir(self) -> Path:
        """The state folder, `~` resolved."""
        return Path(self.agent.state_dir).expanduser()


TOLERANT_SECTIONS: dict[str, frozenset[str]] = {
    "environment": frozenset({"type", "region"}),
    "registry": frozenset(
        {
            "type", "uri", "account_id", "region", "repo_name", "repository", "image-name",
            "project",
        }
    ),
    "builder": frozenset(
        {
            "type", "destination", "platform", "build-context-store", "build-job-name",
            "secret-name", "secret-key", "kaniko-image", "kaniko-config",
        }
    ),
}  # fmt: skip
"""Sections in which an unknown key is a warning, with the keys that W&B's agent knows."""
