"""What a journey works with: the ports, built by compose and the same for all items."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import msgspec

from launch_async.agent.report_line import ReportLine
from launch_async.agent.run_looks import RunLooks
from launch_async.agent.table import Table
from launch_async.agent.timeouts import Timeouts
from launch_async.agent.warnings import Warnings
from launch_async.domain.run import FoundRun
from launch_async.domain.secret import Secret
from launch_async.kit.once import Once
from launch_async.kit.shared import Shared
from launch_async.ports.backends import BackendSource
from launch_async.ports.build import Builder
from launch_async.ports.bundles import BundleStore
from launch_async.ports.claims import Claims
from launch_async.ports.configs import QueueConfigs
from launch_async.ports.jobs import JobStore
from launch_async.ports.pauses import PauseStore
from launch_async.ports.presence import Presence
from launch_async.ports.queue import ItemQueue
from launch_async.ports.requeues import Requeues
from launch_async.ports.runner import Runner
from launch_async.ports.runs import RunDirectory


class Target(msgspec.Struct, frozen=True):
    """One resource type: who makes a job runnable for it and who runs it."""

    runner: Runner
    builder: Builder
    looks: Shared[Sequence[FoundRun]] = msgspec.field(default_factory=Shared)
    """Looks at what the backend has, shared by the items that wait for one."""


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """The ports and settings of one agent."""

    table: Table
    queue: ItemQueue
    presence: Presence
    runs: RunDirectory
    claims: Claims
    requeues: Requeues
    bundles: BundleStore
    pauses: PauseStore
    jobs: JobStore
    targets: Mapping[str, Target]
    """By resource type, in W&B's words: `local-process`, `local-container`."""
    builds: anyio.CapacityLimiter
    identity: str
    reports: ReportLine = msgspec.field(default_factory=ReportLine)
    run_looks: RunLooks = msgspec.field(default_factory=RunLooks)
    warnings: Warnings
    services: Mapping[str, Callable[[], Awaitable[None]]] = {}
    """Background work by name, each until cancelled: warnings, retention."""
    life: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex[:12])
    """New at each start: tells the runs of this life from those of earlier ones."""
    base_url: str
    api_key: Secret[str]
    backends: Sequence[BackendSource] = ()
    """What is called for the agent, for metrics."""
    retry_seconds: float
    """Pause between two tries of something that must be told in the end."""
    patience_seconds: float = 300.0
    """How long an outage may keep an item from its launch before the item fails."""
    upload_seconds: float = 60.0
    """How long an outage may keep an error file from its place before the report goes without."""
    configs: QueueConfigs | None = None
    """The queues' own resource configs; None: nobody knows them."""
    secure_mode: bool = False
    """Whether items are held to what their queue's config allows (domain/policy.py)."""
    require_run_key: bool = False
    """Whether items without a key of their own are refused, or get the agent's."""
    macros: Mapping[str, str] = {}
    """Those of the agent's variables that resource configs may use."""
    said: Once = msgspec.field(default_factory=Once)
    """What this life of the agent has said already."""
    stop_grace_seconds: float
    """From a stop request to the forced end."""
    timeouts: Timeouts = Timeouts()
    """How long runs may take to start and to run."""
    item_retries: int = 5
    """How often a preempted run is queued again at most."""
    run_look_up_pauses: tuple[float, ...] = (0.0, 0.5, 2.0, 5.0)
    """Seconds before each look for the run of a clean exit, or of one that its backend lost; a
    remote service may show it, or its end, late."""
    run_word_seconds: float = 60.0
    """How long an outage may keep the verdict on a run that its backend lost."""
    orphan_grace_seconds: float = 300.0
    """From the first sight of a run that no item is about to its end, if it is to be ended."""
    end_orphans: bool = False
    """Whether such runs are ended; else they are shown and left alone."""
