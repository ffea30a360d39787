"""A queue item in an agent's hands."""

import msgspec

from launch_async.domain.ids import ItemId, QueueRef, RunId, RunRef
from launch_async.domain.secret import Secret
from launch_async.domain.spec import RunSpec


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An item as popped from its queue, with the run id that it will be claimed with."""

    id: ItemId
    queue: QueueRef
    run_id: RunId
    spec: RunSpec
    popped_at: float
    """Unix time in seconds, for people; durations are measured on the monotonic clock."""

    lease: str | None = None
    """The token of the lease, on services that have such; the ack and the fail show it again."""

    sent: Secret[str] | None = None
    """The run spec's JSON as it came, where a requeue is a new push; it may hold a key."""

    @property
    def run(self) -> RunRef:
        """The W&B run that this item becomes."""
        return RunRef(entity=self.spec.entity, project=self.spec.project, run_id=self.run_id)
