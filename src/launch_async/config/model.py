"""The settings of an agent, one frozen struct per section.

The top level is W&B's `launch-config.yaml` with its defaults (launch-features.md §1.4); `agent:`,
`loop:` and the objects in `queues:` are ours. Unknown keys are errors, except in `environment`,
`registry` and `builder`, where W&B's agent tolerates them: there they are warnings.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from launch_async.config.images import (
    BuilderSection,
    DockerSection,
    RegistryLoginConfig,
    builder_section,
    registry_section,
    repository_of,
)
from launch_async.config.kubernetes import KubernetesSection
from launch_async.config.paths import home_path
from launch_async.domain.git import GitSettings

Limit = Annotated[int, msgspec.Meta(ge=-1)]
"""A number of items; -1 means no limit of its own."""

MAX_SECONDS = 31_536_000
"""A year: longer waits are mistakes."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]

Wait = Annotated[float, msgspec.Meta(ge=0.05, le=3600)]
"""Seconds between two looks into a queue."""

MAX_QUEUE_NAME = 64
QueueName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_QUEUE_NAME)]

VariableName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]

DEFAULT_STATE_DIR = "~/.local/state/launch-async"
DEFAULT_ADMIN = "127.0.0.1:8484"


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One queue to poll."""

    name: QueueName
    """Name of the queue, in the agent's entity."""
    max_jobs: Limit = -1
    """Items of this queue at once; -1: only the agent's own `max_jobs` counts."""
    weight: Annotated[float, msgspec.Meta(ge=0.001, le=1000)] = 1.0
    """Share of the agent's slots while several queues want them: 2 gets twice as many as 1."""
    start_timeout: Seconds | None = None
    """Seconds from launch to running for this queue's runs; None: `agent.start_timeout`."""
    run_timeout: Seconds | None = None
    """Seconds that this queue's runs may run; None: `agent.run_timeout`, 0: no limit."""
    paused: bool = False
    """Whether the agent starts with this queue paused: it takes nothing until it is resumed. What
    people pause stays paused at a start whatever this says."""


class TargetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One resource type that items run on."""

    max_jobs: Limit = -1
    """Items at once on this resource, over all queues; -1: only the other limits count."""


class OrphansConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs that bear this agent's mark on a backend, but that no item of its is about."""

    action: Literal["report", "end"] = "report"
    """`report` logs them; `end` ends them too. Reported first, so that nothing is ended unseen."""
    grace: Seconds = 300.0
    """Seconds that an orphan is left alone after it was found; its item may yet turn up."""


class RetentionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the state folder keeps, at most. What is in use is never removed."""

    bundles_days: Annotated[float, msgspec.Meta(ge=0, le=36500)] = 14.0
    """Days that post-mortem bundles of ended items are kept; they are also in the item's files."""
    bundles_mb: Annotated[int, msgspec.Meta(ge=0)] = 500
    """Megabytes of bundles; the oldest go first."""
    environments_days: Annotated[float, msgspec.Meta(ge=0, le=36500)] = 14.0
    """Days that a job environment is kept after its last use."""
    environments_mb: Annotated[int, msgspec.Meta(ge=0)] = 5000
    """Megabytes of job environments; the longest unused go first."""
    code_days: Annotated[float, msgspec.Meta(ge=0, le=36500)] = 14.0
    """Days that a job's code is kept after its last use."""
    code_mb: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    """Megabytes of jobs' code; the longest unused goes first."""
    build_logs_days: Annotated[float, msgspec.Meta(ge=0, le=36500)] = 14.0
    """Days that the logs of image builds are kept; those of failed items are in their files too."""
    build_logs_mb: Annotated[int, msgspec.Meta(ge=0)] = 500
    """Megabytes of such logs; the oldest go first."""


class StartTimeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds that a run may wait for one cause, counted since its backend names it; 0: no limit of
    its own. `start_timeout` counts beside them, but not while a run is queued."""

    queued: Seconds = 604_800.0
    """Held back on purpose: suspended, gated, waiting for its turn in Kueue. A week, as queues are
    long."""
    image: Seconds = 900.0
    """Its image cannot be pulled. Registries are back after a while, wrong names never are."""
    config: Seconds = 300.0
    """A secret or config map that it names is missing."""
    unschedulable: Seconds = 0.0
    """No machine has what it needs."""
    refused: Seconds = 0.0
    """A quota, a webhook or a policy lets no part of it be made."""
    volume: Seconds = 0.0
    """A volume cannot be mounted."""
    init: Seconds = 0.0
    """An init container runs, or fails again and again."""
    container: Seconds = 0.0
    """Its machine cannot make or start it."""


class AgentSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What W&B's file has no words for."""

    name: str = ""
    """A name for people, shown with the agent. Empty: the host's name."""
    state_dir: str = DEFAULT_STATE_DIR
    """Folder of the journal, job environments and running processes. One agent per folder; keep it
    on a local disk and across restarts, since running items are found again through it."""
    admin: str = DEFAULT_ADMIN
    """HOST:PORT of the admin endpoint, port 0 for any free one; empty switches it off. Reading has
    no login: keep it on loopback or on a network of your probes."""
    admin_token_file: str = ""
    """File of the token that changes over the admin endpoint need (pause, cancel, drain and so on);
    empty: they are refused. A file, since neither arguments nor this file are a place for it."""
    grace: Seconds = 30.0
    """Seconds that running items get to end after SIGTERM; then they are let go (they keep running
    on their backend and the next start adopts them). A drain has a timeout of its own."""
    poll: Wait = 2.0
    """Shortest pause in seconds before the next look into a queue that was empty. W&B's agent
    waits 10."""
    poll_max: Wait = 5.0
    """Longest pause in seconds between two looks into an idle queue, to which the pauses grow. Half
    of what W&B's agent waits: one request looks into up to 50 queues."""
    heartbeat: Annotated[float, msgspec.Meta(ge=0.05, le=30)] = 10.0
    """Seconds between two reports of the agent's status and between two looks for stop requests. An
    agent that was not heard for 60 s is not ready, and lost for our control plane after 120 s."""
    builds: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Environments or images prepared at once; further items wait with their slot."""
    waiting: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Items taken but not launched at most, over all queues, apart from `max_jobs`: an agent that
    cannot build fast enough leaves the rest to others. What its backend holds up counts for its
    queue alone, so that other queues go on."""
    calls_per_second: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 50.0
    """Requests to the W&B API in a second, files and heartbeats not counted: an item takes two or
    three until it is launched."""
    burst: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    """Such requests at once after a quiet time."""
    start_timeout: Seconds = 1800.0
    """Seconds a run may take from launch to running before it is ended; 0 switches it off.
    `WANDB_LAUNCH_START_TIMEOUT` overrides it, as for W&B's agent."""
    start_timeouts: StartTimeouts = StartTimeouts()
    """Limits for runs that wait for a certain cause, where the backend tells it, as Kubernetes."""
    run_timeout: Seconds = 0.0
    """Seconds that a run may run before it is ended; 0 is no limit, as for W&B's agent."""
    patience: Seconds = 300.0
    """Seconds that an outage may keep an item from its launch before the item fails."""
    item_retries: Annotated[int, msgspec.Meta(ge=0)] = 5
    """How often a preempted run is queued again at most. W&B's number."""
    targets: dict[str, TargetConfig] = {}
    """Limits of resource types, by their names in W&B: `local-process`, `local-container`."""
    orphans: OrphansConfig = OrphansConfig()
    """What to do with runs of this agent that no item is about."""
    retention: RetentionConfig = RetentionConfig()
    """How much of the past the state folder keeps."""
    registries: tuple[RegistryLoginConfig, ...] = ()
    """Logins of image registries, beside those that the user's Docker and the clouds give."""
    git: GitSettings = GitSettings()
    """How the code of git jobs is fetched."""
    docker: DockerSection = DockerSection()
    """What Docker jobs may do on this machine, and which images stay on it."""
    kubernetes: KubernetesSection | None = None
    """Which cluster Kubernetes jobs run in, and what they may do there."""
    require_run_key: bool = False
    """Fail items that bring no key of their own. Else their runs get the agent's key, as W&B's
    agent does it: W&B's own service may send none."""
    macros: tuple[VariableName, ...] = ()
    """Names of the agent's environment variables that resource configs may use as `${NAME}`.
    None: whoever may edit a config could read them."""

    def __post_init__(self) -> None:
        """What the fields say only together."""
        if self.poll_max < self.poll:
            msg = f"poll_max ({self.poll_max:g}) is less than poll ({self.poll:g}); raise it"
            raise ValueError(msg)


class LaunchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """launch-config.yaml."""

    queues: tuple[QueueName | QueueConfig, ...] = ()
    """Queues to poll: names, or objects with limits of their own."""
    entity: str | None = None
    """Owner of the queues. Default: the login's own entity. `WANDB_ENTITY` overrides it."""
    max_jobs: Limit = 1
    """Items at once over all queues; -1 is no limit. `WANDB_LAUNCH_MAX_JOBS` overrides it."""
    max_schedulers: Limit = 1
    """Sweep schedulers at once; -1 is no limit. They count for this limit alone."""
    secure_mode: bool = False
    """Refuse items that override the entry point of their job, or set what only their queue's
    config may set (domain/policy.py)."""
    verbosity: Annotated[int, msgspec.Meta(ge=0)] = 0
    """0: one line per change of state; 1 and more: debug lines too."""
    stopped_run_timeout: Annotated[int, msgspec.Meta(ge=0, le=MAX_SECONDS)] = 60
    """Seconds between a stop request for a run and its forced end."""
    environment: dict[str, Any] | None = None
    """Credentials of a cloud: type aws, gcp, azure or local, and region."""
    registry: dict[str, Any] | None = None
    """Image registry (deprecated by W&B in favour of builder.destination)."""
    builder: dict[str, Any] | None = None
    """How images are built: type docker, buildkit, kaniko or noop."""
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
        return ("environment",) if self.environment else ()

    def building(self) -> BuilderSection:
        """`builder`, checked, with the repository that `registry` names if it names none.

        Raises:
            ConfigError: a key of either is not what it should be.
        """
        builder, registry = builder_section(self.builder), registry_section(self.registry)
        if builder.destination:
            named: tuple[str, str] | None = "builder.destination", builder.destination
        else:
            named = registry.destination()
        destination = None if named is None else repository_of(named[1], named[0])
        return msgspec.structs.replace(builder, destination=destination)

    @property
    def state_dir(self) -> Path:
        """The state folder, `~` resolved.

        Raises:
            ConfigError: it is no path, or in a home folder that is not there.
        """
        return home_path(self.agent.state_dir, "agent.state_dir")


TOLERANT_SECTIONS: dict[str, frozenset[str]] = {
    "environment": frozenset({"type", "region"}),
    "registry": frozenset(
        {
            "type", "uri", "account_id", "region", "repo_name", "repository", "image-name",
            "project",
        }
    ),
    "builder": frozenset(field.encode_name for field in msgspec.structs.fields(BuilderSection)),
}  # fmt: skip
"""Sections in which an unknown key is a warning, with the keys that W&B's agent knows."""
