"""Objects of the Kubernetes API, cut down to what a verdict on a run needs.

There are thousands of them in memory. The API server fills the built-in kinds from typed structs:
pointers, lists, maps and times may be absent or null there, texts and numbers only absent. What a
custom resource says of itself is anybody's, and stays JSON.
"""

from datetime import datetime
from typing import Any

import msgspec

_WANTED_CONDITIONS = frozenset({"PodScheduled", "Ready", "DisruptionTarget", "TerminationTarget"})


class _Frozen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Trees that were decoded: no cycles, so that the garbage collector need not look at them."""


class _Camel(_Frozen, rename="camel", frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """With the API's spelling of names."""


class Labels(_Frozen, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The labels that mean something here."""

    identity: str = msgspec.field(default="", name="launch-async/identity")
    run: str = msgspec.field(default="", name="launch-async/run")
    item: str = msgspec.field(default="", name="launch-async/item")
    service_of: str = msgspec.field(default="", name="launch-async/service-of")
    """In place of `item` on what runs beside a run."""
    job_name: str = msgspec.field(default="", name="batch.kubernetes.io/job-name")
    index: str = msgspec.field(default="", name="batch.kubernetes.io/job-completion-index")
    """Of a pod of an indexed Job."""
    kueue_queue: str = msgspec.field(default="", name="kueue.x-k8s.io/queue-name")


class Annotations(_Frozen, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The annotations that mean something here."""

    origin: str = msgspec.field(default="", name="launch-async/origin")
    ttl: str = msgspec.field(default="", name="launch-async/ttl")
    image: str = msgspec.field(default="", name="launch-async/image")
    code_image: str = msgspec.field(default="", name="launch-async/code-image")
    services: str = msgspec.field(default="", name="launch-async/services")
    main_container: str = msgspec.field(default="", name="kubectl.kubernetes.io/default-container")


class OwnerReference(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Whose part an object is."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Meta(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What every object has. Times are as the API gives them: `unix_time` reads them."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    """Grows with each change of its spec, and of a pod when it is deleted."""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    """When it is gone at the latest: the moment it was deleted plus its grace. A node that has
    ended a pod deletes it anew, without a grace, and so moves this moment."""
    deletion_grace_period_seconds: int | None = None
    labels: Labels | None = None
    annotations: Annotations | None = None
    owner_references: tuple[OwnerReference, ...] | None = None

    @property
    def deleted_at(self) -> float | None:
        """When somebody deleted it, as a Unix time; None: nobody did."""
        gone_at = unix_time(self.deletion_timestamp)
        if gone_at is None:
            return None
        return gone_at - (self.deletion_grace_period_seconds or 0)

    def label(self) -> Labels:
        """The labels, also where there are none."""
        return self.labels or Labels()


class Condition(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One of the things that an object says of itself."""

    type: str = ""
    status: str = ""
    """`True`, `False` or `Unknown`."""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None

    @property
    def true(self) -> bool:
        """Whether it holds."""
        return self.status == "True"


class JobSpec(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a Job shall do. The API server fills in `backoffLimit`."""

    parallelism: int | None = None
    completions: int | None = None
    completion_mode: str | None = None
    backoff_limit: int | None = None
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    suspend: bool | None = None


class JobStatus(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How a Job is doing."""

    active: int | None = None
    ready: int | None = None
    terminating: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    start_time: str | None = None
    completed_indexes: str | None = None
    """Such as `0,2-4`."""
    failed_indexes: str | None = None
    conditions: tuple[Condition, ...] | None = None


class Job(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A Job of `batch/v1`."""

    metadata: Meta = Meta()
    spec: JobSpec | None = None
    status: JobStatus | None = None


class Terminated(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How a container ended."""

    exit_code: int = 0
    signal: int | None = None
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None


class Waiting(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class Running(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """That a container runs."""

    started_at: str | None = None


class ContainerState(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One of the three, or none."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How a container is doing."""

    name: str = ""
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState | None = None
    last_state: ContainerState | None = None

    def now(self) -> ContainerState:
        """Its state, also where there is none."""
        return self.state or ContainerState()

    @property
    def ended(self) -> Terminated | None:
        """How it ended, now or before its last restart."""
        return self.now().terminated or (self.last_state or ContainerState()).terminated


class Container(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A container of a pod, as its author wants it."""

    name: str = ""
    restart_policy: str | None = None
    """`Always` on an init container makes it a sidecar that the pod does not wait for."""


class SchedulingGate(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Something that must take its gate away before the pod is scheduled."""

    name: str = ""


class PodSpec(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a pod shall be."""

    node_name: str = ""
    restart_policy: str = ""
    termination_grace_period_seconds: int | None = None
    containers: tuple[Container, ...] | None = None
    """In their author's order; the statuses are in another."""
    init_containers: tuple[Container, ...] | None = None
    scheduling_gates: tuple[SchedulingGate, ...] | None = None


class PodStatus(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How a pod is doing; of its conditions only those that a verdict needs are kept."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    """What its node knew when it said this; since Kubernetes 1.33."""
    start_time: str | None = None
    conditions: tuple[Condition, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None

    def __post_init__(self) -> None:
        """Forget what nobody asks for."""
        kept = tuple(one for one in self.conditions or () if one.type in _WANTED_CONDITIONS)
        msgspec.structs.force_setattr(self, "conditions", kept)


class Pod(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A pod of `v1`."""

    metadata: Meta = Meta()
    spec: PodSpec | None = None
    status: PodStatus | None = None


class InvolvedObject(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an event is about."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    field_path: str = ""


class EventSeries(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """That an event came again."""

    last_observed_time: str | None = None


class Event(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An event of `v1`: what some part of the cluster has to say of an object."""

    metadata: Meta = Meta()
    involved_object: InvolvedObject = InvolvedObject()
    type: str = ""
    reason: str = ""
    message: str = ""
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    series: EventSeries | None = None

    @property
    def at(self) -> float:
        """When it came last, as a Unix time."""
        again = self.series.last_observed_time if self.series else None
        times = (again, self.last_timestamp, self.event_time, self.first_timestamp)
        return max((unix_time(one) or 0.0 for one in times), default=0.0)


class CustomSpec(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The parts of a custom resource by which a queueing system holds it back."""

    suspend: Any = None
    run_policy: Any = None


class CustomStatus(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The places where the kinds that we know say how they are doing.

    The rest, such as the list of all steps of a workflow, is not kept.
    """

    phase: Any = None
    state: Any = None
    application_state: Any = None
    job_status: Any = None
    job_deployment_status: Any = None
    terminal_state: Any = None
    conditions: Any = None
    replicated_jobs_status: Any = None
    completion_time: Any = None
    restarts: Any = None
    retry_count: Any = None
    reason: Any = None
    message: Any = None


class Custom(_Camel, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Any other kind."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta = Meta()
    spec: CustomSpec | list[Any] | str | float | bool | None = None
    status: CustomStatus | list[Any] | str | float | bool | None = None


def unix_time(text: str | None) -> float | None:
    """A time of the API as a Unix time; None for what is none."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
